//! Compresses and decompresses heads (HPACK).
//!
//! In: the blocks of HEADERS frames. Out: names and values, and back. Our own code, because the `h2` crate's
//! decoder has two faults. If a field's text is illegal it ends the client's connection, where only the
//! stream is at fault (RFC 9113 §8.1.1). And it makes a map of the fields, which the edge does not need.
//! Source: RFC 7541.

mod decode;
mod encode;
#[cfg(fuzzing)]
pub mod fuzz;
mod huffman;
mod names;

pub use self::decode::Decoder;
pub use self::encode::Encoded;

/// Size of the table in bytes until a client learns another (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE: usize = 4096;

/// A block that cannot be decoded. From then on the client's table and ours differ, so the connection cannot
/// go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionError;
