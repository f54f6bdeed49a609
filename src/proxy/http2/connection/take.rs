//! Handles the frames of a client: begins streams, ends what a fault must end, and counts frames that cost
//! others.
//!
//! Source: RFC 9113 §5.1, §5.4, §6; §10.5.

use std::time::Instant;

use h2::Reason;
use h2::frame::{Ping, Settings};

use super::end::End;
use super::{Connection, Leaving, NewStream, Stalled};
use crate::observe::end_reason::EndReason;
use crate::proxy::flow::Exchange;
use crate::proxy::http2::head::Head;
use crate::proxy::http2::input::{Frame, FrameError};
use crate::proxy::http2::limits::Exceeded;
use crate::proxy::http2::mux::Mux;
use crate::proxy::http2::request;
use crate::proxy::http2::stream::Stream;

impl Connection {
    /// Handles one frame.
    ///
    /// Errors: why the connection ends.
    pub(super) fn take(&mut self, mux: &mut Mux, frame: Frame<'_>) -> Result<(), End> {
        if !self.greeted && !matches!(frame, Frame::Settings(_)) {
            return Err(End::Error(Reason::PROTOCOL_ERROR));
        }
        let taken = match frame {
            Frame::Data {
                id,
                payload,
                length,
                last,
                is_empty,
            } => {
                if is_empty && !last {
                    self.count(Exceeded::Empty)?;
                }
                mux.data(id, payload, length, last)
            }
            Frame::Headers(head) => self.take_head(mux, &head)?,
            Frame::Reset(reset) => match mux.was_reset(reset.stream_id().into()) {
                Ok(true) => return self.count(Exceeded::Resets),
                Ok(false) => Ok(()),
                Err(e) => Err(e),
            },
            Frame::Settings(settings) => return self.take_settings(mux, &settings),
            Frame::Ping(ping) if ping.is_ack() => Ok(()),
            Frame::Ping(ping) => {
                self.count(Exceeded::Pings)?;
                Ping::pong(ping.into_payload()).encode(mux.output());
                Ok(())
            }
            Frame::WindowUpdate(update) => {
                mux.window_update(update.stream_id().into(), update.size_increment())
            }
            Frame::GoAway => {
                // The client opens no more streams. The open ones go on.
                self.leaving = Leaving::Last(mux.last());
                Ok(())
            }
            Frame::Ignored => Ok(()),
        };
        taken.or_else(|e| self.fail(mux, e))
    }

    /// Ends the stream or the connection that a fault of the client concerns.
    pub(super) fn fail(&mut self, mux: &mut Mux, e: FrameError) -> Result<(), End> {
        let (id, reason) = match e {
            FrameError::Connection(reason) => return Err(End::Error(reason)),
            FrameError::Stream(id, reason) => (id, reason),
        };
        if mux.has(id) {
            mux.fail(id, reason);
        } else if self.is_new(mux, id)? {
            // The stream's number is used up, although it never was a request.
            self.refuse(mux, id, reason);
            self.begin(None);
        }
        match reason {
            // The client cannot know the limit while our settings are on their way.
            Reason::REFUSED_STREAM if !self.settled => Ok(()),
            _ => self.count(Exceeded::Resets),
        }
    }

    /// Refuses a stream that has no legal head, or that exceeds `limits.http2.streams`.
    fn refuse(&self, mux: &mut Mux, id: u32, reason: Reason) {
        mux.refuse(id, reason);
        let end = match reason {
            Reason::REFUSED_STREAM => EndReason::ClientLimit,
            _ => EndReason::BadRequest,
        };
        Exchange::new(self.conn.clone(), "h2").close(end, (0, 0));
    }

    /// Begins a stream if its turn at the rate of the client has come. `None`: it was refused, and counts as
    /// the others.
    fn begin(&mut self, stream: Option<NewStream>) {
        self.heads += 1;
        match self.conn.listener.stream_turn() {
            Some(turn) => self.stalled = Some(Box::new(Stalled { turn, stream })),
            None => self.new_streams.extend(stream),
        }
    }

    fn count(&mut self, what: Exceeded) -> Result<(), End> {
        let counted = self.counts.count(what, &self.limits, Instant::now());
        counted.map_err(End::Exceeded)
    }

    fn take_settings(&mut self, mux: &mut Mux, settings: &Settings) -> Result<(), End> {
        if settings.is_ack() {
            self.settled = true;
            return Ok(());
        }
        if self.greeted {
            self.count(Exceeded::Settings)?;
        }
        self.greeted = true;
        if let Some(window) = settings.initial_window_size()
            && mux.set_first_window(window).is_err()
        {
            return Err(End::Error(Reason::FLOW_CONTROL_ERROR));
        }
        Settings::ack().encode(mux.output());
        Ok(())
    }

    /// Whether `id` begins a stream. False: the stream is not served any more, or we have reset it.
    fn is_new(&self, mux: &Mux, id: u32) -> Result<bool, End> {
        if id.is_multiple_of(2) {
            return Err(End::Error(Reason::PROTOCOL_ERROR));
        }
        if id <= mux.last() {
            return match mux.unknown(id) {
                Ok(()) => Ok(false),
                Err(_) => Err(End::Error(Reason::STREAM_CLOSED)),
            };
        }
        Ok(!matches!(self.leaving, Leaving::Last(last) if id > last))
    }

    fn take_head(&mut self, mux: &mut Mux, head: &Head) -> Result<Result<(), FrameError>, End> {
        let id = head.id;
        if mux.has(id) {
            return Ok(match request::trailers(head) {
                _ if mux.has_ended(id) => Err(FrameError::Stream(id, Reason::STREAM_CLOSED)),
                Some(lines) => mux.trailers(id, lines),
                None => Err(FrameError::Stream(id, Reason::PROTOCOL_ERROR)),
            });
        }
        if !self.is_new(mux, id)? {
            return Ok(Ok(()));
        }
        if mux.open() >= self.limits.streams as usize {
            return Ok(Err(FrameError::Stream(id, Reason::REFUSED_STREAM)));
        }
        let conf = self.conn.listener.conf.load();
        let judged = request::judge(head, &conf.limits, self.websocket);
        match judged {
            Ok(request) => {
                mux.begin(id, request.ended, request.expected());
                let stream = Stream::new(self.mux.clone(), id, request.head.websocket);
                self.begin(Some(NewStream::Request(stream, Box::new(request.head))));
            }
            Err(request::RequestError::Answered(status, phrase)) => {
                mux.begin(id, head.ended, None);
                let stream = Stream::new(self.mux.clone(), id, false);
                self.begin(Some(NewStream::Refused(stream, (status, phrase))));
            }
            Err(request::RequestError::Malformed) => {
                return Ok(Err(FrameError::Stream(id, Reason::PROTOCOL_ERROR)));
            }
        }
        Ok(Ok(()))
    }
}
