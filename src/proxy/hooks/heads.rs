//! Pingora's header maps as heads, and edited heads as header maps: HTTP/2 only, where Pingora reads and
//! writes them.
//!
//! Source: RFC 9113 §8.2.3 (crumbs of a cookie), §8.3.1 (`:authority`); RFC 9110 §7.2.

use std::sync::Arc;

use http::header::{self, HeaderName};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pushgate_plugins::head::{Edits, Head};

use crate::proxy::http1::request_head::legal_authority;
use crate::proxy::http2::node_head;

/// The client's head.
///
/// Errors: 400 where the host is illegal or ambiguous, or the target is none.
pub fn of_request(head: &RequestHeader) -> Result<Head> {
    let bad = |what| Error::explain(ErrorType::HTTPStatus(400), what);
    let field = head.headers.get(header::HOST);
    let field = field.map(|v| v.to_str().map_err(|_| bad("host is not text")));
    let field = field.transpose()?;
    let target = head.uri.authority().map(|a| a.as_str());
    if let (Some(f), Some(t)) = (field, target)
        && !f.eq_ignore_ascii_case(t)
    {
        return Err(bad("host and authority differ"));
    }
    let host = target.or(field).unwrap_or_default();
    if !host.is_empty() && !legal_authority(host) {
        return Err(bad("illegal host"));
    }
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let others = head.headers.iter().filter(|(n, _)| *n != header::HOST);
    let others = others.map(|(n, v)| (n.as_str(), v.as_bytes()));
    let fields = [("Host", host.as_bytes())].into_iter().chain(others);
    Head::make_request(head.method.as_str(), path, fields).map_err(|_| bad("no legal head"))
}

/// The head that is about to be sent to the node, corrected.
pub fn to_node(head: &mut RequestHeader, h2: bool) -> Result<Edits> {
    node_head::correct(head, h2)?;
    // Pingora passes on `Upgrade: websocket` of what is no upgrade; a node that took it for one would
    // answer with a 101 we have to refuse (D18).
    if head.remove_header(&header::UPGRADE).is_some() {
        head.remove_header(&header::CONNECTION);
    }
    let target = std::str::from_utf8(head.raw_path())
        .unwrap_or("/")
        .to_owned();
    let fields = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes()));
    let made = Head::make_request(head.method.as_str(), &target, fields);
    let made = made.map_err(|_| Error::explain(ErrorType::HTTPStatus(400), "no legal head"))?;
    Ok(Edits::new(Arc::new(made)))
}

/// The node's head, without the fields its `Connection` nominates (RFC 9110 §7.6.1). Pingora drops only those
/// that it knows.
pub fn of_answer(head: &ResponseHeader) -> Result<Edits> {
    let options = head.headers.get_all(header::CONNECTION).into_iter();
    let options = options.flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let named: Vec<&[u8]> = options.map(<[u8]>::trim_ascii).collect();
    let stays = |name: &HeaderName| {
        // Without these the client would read another body, or another date.
        [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::DATE,
        ]
        .contains(name)
            || !named
                .iter()
                .any(|n| n.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let fields = head.headers.iter().filter(|(name, _)| stays(name));
    let fields = fields.map(|(n, v)| (n.as_str(), v.as_bytes()));
    let made = Head::make_response(head.status.as_u16(), "", fields);
    let made = made.map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "no legal head"))?;
    Ok(Edits::new(Arc::new(made)))
}

/// Makes `head` what `edits` say.
pub fn write_request(edits: &Edits, head: &mut RequestHeader) -> Result<()> {
    let path = head.raw_path().to_vec();
    let mut edited = RequestHeader::build(head.method.clone(), &path, None)?;
    edited.set_version(head.version);
    edited.set_send_end_stream(head.send_end_stream().unwrap_or(true));
    for (name, value) in edits.fields() {
        edited.append_header(name.to_owned(), value)?;
    }
    *head = edited;
    Ok(())
}

/// Makes `head` what `edits` say.
pub fn write_answer(edits: &Edits, head: &mut ResponseHeader) -> Result<()> {
    let mut edited = ResponseHeader::build(head.status, None)?;
    edited.set_version(head.version);
    for (name, value) in edits.fields() {
        let appended = edited.append_header(name.to_owned(), value);
        appended.or_err(ErrorType::InvalidHTTPHeader, "answer")?;
    }
    *head = edited;
    Ok(())
}
