//! The compressed heads of a connection, both ways (HPACK).
//!
//! In: HEADERS frames. Out: their blocks as bytes, and back. The tables are the `h2` crate's; their types have
//! no public name, so each is kept in a closure.
//! Source: RFC 7541; RFC 9113 §4.3, §6.10 (CONTINUATION).

use bytes::{BufMut, BytesMut};
use h2::frame::{Error, HEADER_LEN, Headers};

/// Most bytes of a frame, until a client says otherwise (RFC 9113 §4.2).
const MAX_FRAME: usize = 16 * 1024;

/// Writes a head, or sets the size of the table, which its client has announced.
type Encode = Box<dyn FnMut(Work<'_>) + Send>;
/// Reads a whole block into its head; or sets the size of the table.
type Decode = Box<dyn FnMut(Block<'_>) -> Result<(), Error> + Send>;

enum Work<'a> {
    Head(Box<Headers>, &'a mut BytesMut),
    Table(usize),
}

enum Block<'a> {
    Whole(&'a mut Headers, &'a mut BytesMut, usize),
    Table(usize),
}

/// The table of the heads that we send.
pub struct Encoder(Encode);

/// The table of the heads that the client sends.
pub struct Decoder(Decode);

impl Encoder {
    /// One with an empty table.
    pub fn new() -> Self {
        let mut table = Default::default();
        Encoder(Box::new(move |work| match work {
            Work::Head(head, out) => {
                let room = MAX_FRAME + HEADER_LEN;
                let mut rest = head.encode(&mut table, &mut out.limit(room));
                while let Some(next) = rest {
                    rest = next.encode(&mut out.limit(room));
                }
            }
            Work::Table(bytes) => table.update_max_size(bytes),
        }))
    }

    /// Appends the frames of a head to `out`.
    pub fn encode(&mut self, head: Box<Headers>, out: &mut BytesMut) {
        self.0(Work::Head(head, out));
    }

    /// Limits the table to so many bytes.
    pub fn set_table(&mut self, bytes: usize) {
        self.0(Work::Table(bytes));
    }
}

impl Decoder {
    /// One with an empty table of at most so many bytes.
    pub fn new(table_bytes: usize) -> Self {
        let mut table = Default::default();
        let mut decoder = Decoder(Box::new(move |block| match block {
            Block::Whole(head, bytes, most) => head.load_hpack(bytes, most, &mut table),
            Block::Table(bytes) => {
                table.queue_size_update(bytes);
                Ok(())
            }
        }));
        // It fails for a block only.
        let _ = decoder.0(Block::Table(table_bytes));
        decoder
    }

    /// Reads the whole `block` of `head`; more than `most` bytes of fields are left out of it.
    ///
    /// Errors: the block is not legal.
    pub fn decode(
        &mut self,
        head: &mut Headers,
        block: &mut BytesMut,
        most: usize,
    ) -> Result<(), Error> {
        self.0(Block::Whole(head, block, most))
    }
}
