//! The compression of heads (HPACK).
//!
//! In: the blocks of HEADERS frames. Out: names and values, and back. Ours, because the `h2` crate's decoder ends
//! the connection of a client whose field has no legal text, where only the stream is at fault (RFC 9113
//! §8.1.1), and makes a map of fields that nobody needs.
//! Source: RFC 7541.

mod decode;
mod encode;
mod huffman;
mod names;

pub use self::decode::Decoder;
pub use self::encode::Encoded;

/// Bytes of the table until the client is told otherwise (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE: usize = 4096;

/// A block that cannot be decoded: the client's table and ours differ from here on, so that the connection
/// cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionError;
