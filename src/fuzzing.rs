//! The fuzz targets: each gives bytes to one reader of foreign input and asserts what must hold of the result.
//!
//! In: bytes that libFuzzer makes up. Out: nothing, or a panic. Each target is beside the code it tests, in a
//! file `fuzz.rs`. Built under `cfg(fuzzing)` only; `fuzz/README.md` says how to run them and add one.

use crate::listener::{client_hello, proxy_protocol};
use crate::proxy::http1::{request_head, response_head};
use crate::proxy::http2;
use crate::stream::{frames, framing};
use crate::{config, credentials, import};

/// One target.
pub type Target = fn(&[u8]);

/// Every target, with its name: that of its folder in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("request_head", request_head::fuzz::run),
    ("response_head", response_head::fuzz::run),
    ("chunked", framing::fuzz::run),
    ("hpack", http2::fuzz::hpack),
    ("http2_frames", http2::fuzz::frames),
    ("http2_connection", http2::fuzz::connection),
    ("websocket_frames", frames::fuzz::run),
    ("proxy_protocol", proxy_protocol::fuzz::run),
    ("client_hello", client_hello::fuzz::run),
    ("token", pushgate_plugins::sticky_cookie::fuzz::run),
    ("configuration", config::fuzz::run),
    ("lightstreamer_conf", import::fuzz::run),
    ("keystore", credentials::fuzz::run),
];

/// Cuts `data` into pieces as a network may: of one byte each, or of sizes that depend on `data` alone, so that
/// an input always does the same.
pub(crate) fn pieces(data: &[u8], bytewise: bool) -> impl Iterator<Item = &[u8]> {
    let mut rng = fastrand::Rng::with_seed(crc32c::crc32c(data).into());
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let most = if bytewise { 1 } else { rest.len().min(64) };
        let (piece, behind) = rest.split_at(rng.usize(1..=most));
        rest = behind;
        Some(piece)
    })
}
