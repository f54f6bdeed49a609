//! Fuzz target `lightstreamer_conf`: the configuration of a push server.
//!
//! Fails where a fault is at no place of the text, or where the configuration that is written for the servers
//! cannot be read back. Source: Lightstreamer clustering §2, §3.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::init::Own;

/// Reads `data` as the file of one server, and writes the edge's configuration for it.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let server = match parse(text, Path::new("ls1.xml")) {
        Ok(server) => server,
        Err(fault) => {
            let lines = text.split('\n').count();
            if let Some((line, column)) = fault.at {
                assert!((1..=lines as u32).contains(&line) && column > 0, "{fault}");
            }
            return;
        }
    };
    assert!(!server.sockets.is_empty() && server.sockets.iter().all(|s| s.port > 0));
    let Ok(written) = write(&[server], &Own::default()) else {
        return;
    };
    if let Err(faults) = Config::parse(&written.yaml, "f", Path::new("/nonexistent")) {
        // The keystores and passwords that it names are not there.
        let is_sound = faults.iter().all(|f| f.path.starts_with("certificates"));
        assert!(is_sound, "{faults}\n{}", written.yaml);
    }
}
