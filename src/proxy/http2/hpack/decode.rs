//! Decodes the heads that a client sends.
//!
//! In: whole blocks, in their order. Out: names and values as bytes; whether they are legal is not judged here.
//! Source: RFC 7541 §2.3, §3, §4, §5, §6.

use std::collections::VecDeque;

use super::names::STATIC;
use super::{CompressionError, DEFAULT_TABLE, huffman};

/// What an entry counts beside its bytes (RFC 7541 §4.1).
const ENTRY: usize = 32;
/// Most bytes of an integer. Five hold more than any legal one.
const MAX_INTEGER: u32 = 5;

/// The decoder of one connection, with its table.
pub struct Decoder {
    /// The newest entry first.
    entries: VecDeque<Entry>,
    /// Bytes of the entries as HPACK counts them, and how many there may be.
    size: usize,
    most: usize,
    /// What we have told the client that there may be at most.
    limit: usize,
    /// Name and value of a field that is not in the table, or that Huffman's code hides.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// One field of the table.
struct Entry {
    bytes: Box<[u8]>,
    name_end: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + ENTRY
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.name_end)
    }
}

impl Decoder {
    /// One whose client is told that the table may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder {
            entries: VecDeque::new(),
            size: 0,
            most: DEFAULT_TABLE,
            limit,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Calls `field` for each name and value of `block`. It goes on to the end whatever they are: the next
    /// block needs the table.
    ///
    /// Errors: the connection cannot go on.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), CompressionError> {
        let mut rest = block;
        let mut is_first = true;
        while let Some(kind) = rest.first().copied() {
            match kind {
                0x80.. => {
                    let entry = integer(&mut rest, 7)?;
                    let (name, value) = self.entry(entry)?;
                    field(name, value);
                }
                0x20..0x40 => {
                    let most = integer(&mut rest, 5)?;
                    if !is_first || most > self.limit {
                        return Err(CompressionError);
                    }
                    self.most = most;
                    self.evict(0);
                    continue;
                }
                _ => {
                    let keeps = kind >= 0x40;
                    self.literal(&mut rest, if keeps { 6 } else { 4 })?;
                    field(&self.name, &self.value);
                    if keeps {
                        self.keep();
                    }
                }
            }
            is_first = false;
        }
        // An idle connection keeps no more than the table.
        (self.name, self.value) = (Vec::new(), Vec::new());
        Ok(())
    }

    /// Reads a literal field, whose first byte has a prefix of `bits` bits, into `name` and `value`.
    fn literal(&mut self, rest: &mut &[u8], bits: u32) -> Result<(), CompressionError> {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        match integer(rest, bits)? {
            0 => string(rest, &mut name)?,
            entry => name.extend_from_slice(self.entry(entry)?.0),
        }
        self.name = name;
        self.value.clear();
        string(rest, &mut self.value)
    }

    /// Puts `name` and `value` into the table. One that is larger than the table empties it (RFC 7541 §4.4).
    fn keep(&mut self) {
        let size = self.name.len() + self.value.len() + ENTRY;
        self.evict(size);
        if size > self.most {
            return;
        }
        let entry = Entry {
            bytes: [&self.name[..], &self.value[..]].concat().into(),
            name_end: self.name.len(),
        };
        self.size += size;
        self.entries.push_front(entry);
    }

    /// Drops the oldest entries until there is room for `more` bytes.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.most {
            match self.entries.pop_back() {
                Some(entry) => self.size -= entry.size(),
                None => return,
            }
        }
    }

    fn entry(&self, number: usize) -> Result<(&[u8], &[u8]), CompressionError> {
        let at = number.checked_sub(1).ok_or(CompressionError)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(at - STATIC.len());
        entry.map(Entry::parts).ok_or(CompressionError)
    }
}

/// Takes an integer whose first byte has a prefix of `bits` bits (RFC 7541 §5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, CompressionError> {
    let (first, mut behind) = rest.split_first().ok_or(CompressionError)?;
    let most = (1 << bits) - 1;
    let mut n = usize::from(*first) & most;
    if n == most {
        for place in 0.. {
            let (byte, next) = behind.split_first().ok_or(CompressionError)?;
            if place == MAX_INTEGER - 1 {
                return Err(CompressionError);
            }
            n += usize::from(byte & 0x7f) << (7 * place);
            behind = next;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = behind;
    Ok(n)
}

/// Appends the next string to `out` (RFC 7541 §5.2).
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let is_coded = rest.first().is_some_and(|b| b & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(CompressionError)?;
    *rest = behind;
    match is_coded {
        true => huffman::decode(text, out),
        false => {
            out.extend_from_slice(text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
