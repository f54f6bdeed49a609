//! Bytes that wait: a pointer while there are none, as in a silent flow, which has four such places.

/// Bytes that wait to be read or written.
#[derive(Debug, Default)]
pub struct PendingBytes(Option<Box<Bytes>>);

#[derive(Debug)]
struct Bytes {
    all: Vec<u8>,
    gone: usize,
}

impl PendingBytes {
    /// What waits, first byte first.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |b| &b.all[b.gone..])
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Lets the first `n` bytes go, at most all; with the last the memory goes, too.
    pub fn take(&mut self, n: usize) {
        if let Some(bytes) = &mut self.0 {
            bytes.gone += n;
            if bytes.gone >= bytes.all.len() {
                self.0 = None;
            }
        }
    }

    /// Adds bytes behind what waits.
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Some(bytes) => bytes.all.extend_from_slice(more),
            None => *self = more.to_vec().into(),
        }
    }

    /// All that waits.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.map_or_else(Vec::new, |mut bytes| {
            bytes.all.drain(..bytes.gone);
            bytes.all
        })
    }

    /// Puts `first` in front of what waits.
    pub fn put_back(&mut self, first: Vec<u8>) {
        *self = match self.is_empty() {
            true => first.into(),
            false => [&first, self.bytes()].concat().into(),
        };
    }
}

impl From<Vec<u8>> for PendingBytes {
    /// An empty one gives its memory back: it may still have the 4 KiB in which a request's head was read.
    fn from(all: Vec<u8>) -> Self {
        PendingBytes((!all.is_empty()).then(|| Box::new(Bytes { all, gone: 0 })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A silent WebSocket keeps no buffer: the one its request's head was read into was 4 KiB of the
    /// 8.3 KiB that 4,000 of them cost each (benches, "silent"). Red without the look at its length.
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
