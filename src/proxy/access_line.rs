//! Writes the access lines of a flow: at its end, and at the beginning of a stream if the file says so.
//!
//! In: the facts of an exchange. Out: a line.

use std::time::{Instant, SystemTime};

use super::flow::{Exchange, Record};
use crate::clock;
use crate::observe::access_log::{self, Date, Line};
use crate::observe::end_reason::EndReason;
use crate::observe::termination::{Phase, letters};
use crate::route::Assigned;

impl Exchange {
    /// Writes a line for a stream that begins, if the log has such lines.
    pub fn log_begin(&self) {
        if access_log::has_begin() {
            self.log(&self.record.lock(), None, (0, 0));
        }
    }

    /// Writes a line. `reason`: of the end; `None`: the flow begins.
    pub(super) fn log(&self, record: &Record, reason: Option<EndReason>, bytes: (u64, u64)) {
        if !access_log::is_on() {
            return;
        }
        let assigned = record.assigned.as_ref();
        let pool = assigned.and_then(|a| a.pool.as_ref());
        let tls = self.conn.tls.as_ref();
        let (method, host, path) = record.line.parts();
        let now = clock::wall();
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        access_log::write(&Line {
            time: since.map_or(0.0, |d| d.as_secs_f64()),
            date: Date(now),
            event: if reason.is_some() { "end" } else { "begin" },
            flow: self.flow.id,
            request_id: record.request_id.as_deref(),
            listener: &self.conn.listener.name,
            client: self.conn.client,
            vip: self.conn.vip,
            protocol: record.protocol,
            tls: tls.map(|t| t.version).filter(|v| !v.is_empty()),
            sni: tls.and_then(|t| t.sni.as_deref()),
            method,
            host,
            path,
            user_agent: record.line.agent(),
            status: record.status,
            pool: pool.map(|p| p.name.as_str()),
            node: assigned.map(|a| a.node.name.as_str()),
            how: assigned.map(Assigned::how_str),
            retries: record.retries,
            bytes_up: bytes.0,
            bytes_down: bytes.1,
            seconds: self.flow.age(Instant::now()).as_secs_f64(),
            reason: reason.map(EndReason::as_str),
            ended: reason.map(|reason| letters(reason, self.phase(record), is_tunnel(record))),
        });
    }

    fn phase(&self, record: &Record) -> Phase {
        match &record.assigned {
            _ if self.flow.has_begun() => Phase::Data,
            Some(_) if record.asked => Phase::Headers,
            Some(_) => Phase::Connect,
            None => Phase::Request,
        }
    }
}

fn is_tunnel(record: &Record) -> bool {
    record.protocol == "tcp" || record.status == 101 || record.protocol == "websocket"
}
