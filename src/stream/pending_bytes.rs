//! Bytes that wait to be read or written. A silent flow has four such places, so an empty one is only a
//! pointer.

/// Bytes that wait to be read or written.
#[derive(Debug, Default)]
pub struct PendingBytes(Option<Box<Bytes>>);

#[derive(Debug)]
struct Bytes {
    all: Vec<u8>,
    gone: usize,
}

impl PendingBytes {
    /// Returns the bytes that wait, the first one first.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |b| &b.all[b.gone..])
    }

    /// Whether no bytes wait.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Removes the first `n` bytes, at most all of them; the last byte frees the memory.
    pub fn take(&mut self, n: usize) {
        if let Some(bytes) = &mut self.0 {
            bytes.gone += n;
            if bytes.gone >= bytes.all.len() {
                self.0 = None;
            }
        }
    }

    /// Adds bytes after those that wait.
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Some(bytes) => bytes.all.extend_from_slice(more),
            None => *self = more.to_vec().into(),
        }
    }

    /// Returns all bytes that wait.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.map_or_else(Vec::new, |mut bytes| {
            bytes.all.drain(..bytes.gone);
            bytes.all
        })
    }

    /// Puts `first` in front of the bytes that wait.
    pub fn put_back(&mut self, first: Vec<u8>) {
        *self = match self.is_empty() {
            true => first.into(),
            false => [&first, self.bytes()].concat().into(),
        };
    }
}

impl From<Vec<u8>> for PendingBytes {
    /// Frees an empty vector: it may still have the 4 KiB into which a request's head was read.
    fn from(all: Vec<u8>) -> Self {
        PendingBytes((!all.is_empty()).then(|| Box::new(Bytes { all, gone: 0 })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A silent WebSocket keeps no buffer. The one of its request's head was 4 KiB of the 8.3 KiB that each
    /// of 4,000 silent WebSockets cost (benches, "silent"). Fails if the length is not checked.
    #[test]
    fn an_empty_buffer_is_given_back() {
        assert!(PendingBytes::from(Vec::with_capacity(4096)).0.is_none());
        assert_eq!(size_of::<PendingBytes>(), size_of::<usize>());
    }

    #[test]
    fn bytes_go_in_their_order() {
        let mut pending = PendingBytes::from(b"defg".to_vec());
        pending.take(1);
        pending.put_back(b"abcd".to_vec());
        assert_eq!(pending.bytes(), b"abcdefg");
        pending.take(6);
        assert_eq!((pending.bytes(), pending.is_empty()), (&b"g"[..], false));
        pending.take(1);
        assert!(pending.is_empty() && pending.0.is_none());
    }
}
