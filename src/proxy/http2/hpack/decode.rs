//! Decodes the heads that a client sends (HPACK).
//!
//! In: complete blocks, in order. Out: names and values as bytes. `http2::head` judges whether they are
//! legal.
//! Source: RFC 7541 §2.3, §3, §4, §5, §6.

use std::collections::VecDeque;

use super::names::STATIC;
use super::{CompressionError, DEFAULT_TABLE, huffman};

/// Bytes that an entry counts in addition to its own (RFC 7541 §4.1).
const ENTRY: usize = 32;
/// Most bytes of an integer. Any legal integer fits into five.
const MAX_INTEGER: u32 = 5;

/// The decoder of one connection, with its table.
pub struct Decoder {
    /// The entries, newest first.
    entries: VecDeque<Entry>,
    /// Size of the entries as HPACK counts it, and the most it may be; in bytes.
    size: usize,
    most: usize,
    /// The largest `most` that we allow the client, in bytes.
    limit: usize,
    /// Buffers for name and value of a field that is not in the table, or that is in Huffman code.
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
    /// Makes a decoder whose client may use a table of `limit` bytes.
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

    /// Calls `field` for each name and value of `block`. It reads the block to its end even if they are
    /// illegal, because the next block needs the table.
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
        // An idle connection keeps only the table.
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

    /// Puts `name` and `value` into the table. A field that is larger than the table empties it (RFC 7541
    /// §4.4).
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

    /// Drops the oldest entries until `more` bytes fit.
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

/// Takes an integer, whose first byte has a prefix of `bits` bits (RFC 7541 §5.1).
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
