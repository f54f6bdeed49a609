//! Reads the configuration file of a push server.
//!
//! In: `lightstreamer_conf.xml`. Out: a [`PushServer`], or an error with its place. A read-only XML tree (roxmltree)
//! suffices: the files are small and no types are mapped. It refuses a DTD, so that no entity can expand.
//! Source: Lightstreamer clustering §2, §3 (the elements of each option).

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use roxmltree::{Document, Node};

use super::keystore::{Keystore, Password};
use super::push_server::{Link, PushServer, Socket};
use crate::config::HostName;

/// Elements whose text is read.
const READ: &[&str] = &[
    "port",
    "listening_interface",
    "keystore_file",
    "keystore_password",
    "control_link_address",
    "control_link_machine_name",
];

/// Largest file that is read. A factory file with all its comments is 100 KiB; a larger file is something
/// else.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Says that a file has another encoding, and how to change it.
const NOT_UTF8: &str = "is not UTF-8; expected a copy in UTF-8, as `iconv -f ISO-8859-1 -t UTF-8` makes from \
                        Latin 1";

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ImportError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, if the fault has one place.
    pub at: Option<(u32, u32)>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads all files. Errors: the first fault of each file.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<PushServer>, Vec<ImportError>> {
    let (mut servers, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        match read(path) {
            Ok(server) => servers.push(server),
            Err(fault) => faults.push(fault),
        }
    }
    match faults.is_empty() {
        true => Ok(servers),
        false => Err(faults),
    }
}

/// Reads one file. Errors: the file cannot be read, is not XML, or has no server socket; a port is not legal.
pub fn read(path: &Path) -> Result<PushServer, ImportError> {
    let fault = |message: String| ImportError {
        path: path.to_owned(),
        at: None,
        message,
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    let length = read.map_err(|e| fault(format!("cannot be read: {e}")))?;
    if length as u64 > MAX_BYTES {
        return Err(fault(format!(
            "is larger than {MAX_BYTES} bytes; expected a server's XML configuration"
        )));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path),
        Err(e) => Err(ImportError {
            at: place_of(bytes.get(..e.valid_up_to()).unwrap_or_default()),
            ..fault(NOT_UTF8.to_owned())
        }),
    }
}

/// Returns line and column of what follows `before`, in characters.
fn place_of(before: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(before).ok()?;
    let column = text.rsplit('\n').next()?.chars().count() + 1;
    let line = text.matches('\n').count() + 1;
    Some((line.try_into().ok()?, column.try_into().ok()?))
}

/// Reads the text of one file, called `path` in faults. Errors as [`read`].
pub fn parse(text: &str, path: &Path) -> Result<PushServer, ImportError> {
    let fault = |at, message| ImportError {
        path: path.to_owned(),
        at,
        message,
    };
    let document = Document::parse(text).map_err(|e| {
        let at = (e.pos().row, e.pos().col);
        fault(Some(at), format!("is not well-formed XML: {e}"))
    })?;
    let place = |node: Node<'_, '_>| {
        let at = document.text_pos_at(node.range().start);
        Some((at.row, at.col))
    };
    let read = document
        .descendants()
        .filter(|n| READ.contains(&n.tag_name().name()));
    for node in read {
        if let Some(message) = wrong_text(node) {
            return Err(fault(place(node), message));
        }
    }
    let mut sockets = Vec::new();
    let is_socket =
        |n: &Node<'_, '_>| matches!(n.tag_name().name(), "http_server" | "https_server");
    for node in document.descendants().filter(is_socket) {
        let port = value(node, "port").unwrap_or_default();
        let number = port.parse::<u16>().ok().filter(|port| *port > 0);
        let number = number.ok_or_else(|| {
            let expected = "a number from 1 to 65535; a `$variable` must be given its value";
            fault(
                place(node),
                format!("<port> is `{port}`; expected {expected}"),
            )
        })?;
        sockets.push(Socket {
            tls: node.has_tag_name("https_server"),
            port: number,
            interface: value(node, "listening_interface")
                .and_then(|text| text.parse().ok())
                .filter(|ip: &IpAddr| !ip.is_unspecified()),
            keystore: keystore(node),
        });
    }
    if sockets.is_empty() {
        let expected = "<http_server> or <https_server>";
        return Err(fault(
            None,
            format!("has no server socket; expected {expected}"),
        ));
    }
    let root = document.root();
    let machine =
        || value(root, "control_link_machine_name").map(|m| Link::Machine(m.to_lowercase()));
    Ok(PushServer {
        path: path.to_owned(),
        sockets,
        link: value(root, "control_link_address")
            .map(address)
            .or_else(machine),
        healthcheck: healthcheck(root),
    })
}

/// Checks the text of an element that is read. Returns what is wrong: a character that would break a line of the
/// written configuration, or a control link that is neither a host name nor an address.
fn wrong_text(node: Node<'_, '_>) -> Option<String> {
    let (name, text) = (node.tag_name().name(), node.text()?.trim());
    let is_no_text = |c: &char| {
        c.is_control()
            || matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            )
    };
    if let Some(character) = text.chars().find(is_no_text) {
        let code = u32::from(character);
        return Some(format!(
            "<{name}> has the character U+{code:04X}; expected one line of text"
        ));
    }
    let Link::Address(host, _) = address(text) else {
        return None;
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_ip = bare.unwrap_or(&host).parse::<IpAddr>().is_ok();
    let is_host = text.is_empty() || is_ip || host.parse::<HostName>().is_ok();
    let expected = "a host name or an address, with its port if it has one; a `$variable` must be given its value";
    (name == "control_link_address" && !is_host)
        .then(|| format!("<{name}> is `{text}`; expected {expected}"))
}

/// Whether `<healthcheck_url>` is on: by its own text, or by that of its `<enabled>`. `None`: there is none.
fn healthcheck(root: Node<'_, '_>) -> Option<bool> {
    let element = root
        .descendants()
        .find(|n| n.has_tag_name("healthcheck_url"))?;
    let text = value(element, "enabled").or_else(|| value(element, "healthcheck_url"))?;
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" => Some(true),
        "n" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// Returns the text of the first element `name` below `node`; blank text counts as missing.
fn value<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let texts = node.descendants().filter(|n| n.has_tag_name(name));
    texts
        .filter_map(|n| n.text())
        .map(str::trim)
        .find(|text| !text.is_empty())
}

/// Parses a `<control_link_address>`, which may have a port. An IPv6 address gets brackets, as in a URL.
pub(super) fn address(text: &str) -> Link {
    let text = text.to_lowercase();
    if text.parse::<Ipv6Addr>().is_ok() {
        return Link::Address(format!("[{text}]"), None);
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse()
        && (!host.contains(':') || host.ends_with(']'))
    {
        return Link::Address(host.to_owned(), Some(port));
    }
    Link::Address(text, None)
}

/// Reads the keystore of a server socket's element; `None`: the element has none.
fn keystore(socket: Node<'_, '_>) -> Option<Keystore> {
    let file = value(socket, "keystore_file")?.to_owned();
    let text = value(socket, "keystore_password")
        .unwrap_or_default()
        .to_owned();
    let element = socket
        .descendants()
        .find(|n| n.has_tag_name("keystore_password"));
    let kind = element.and_then(|n| n.attribute("type"));
    let password = match kind {
        Some("file") => Password::File(text),
        _ => Password::Text(text),
    };
    Some(Keystore { file, password })
}
