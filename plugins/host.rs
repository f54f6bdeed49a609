//! Converts host names to the form in which they are compared: lower case, without port and trailing dot.
//!
//! In: `Host`, `:authority` or SNI as received. Out: the same bytes, borrowed unless a letter changes.
//! Source: RFC 9110 §4.2.3, Lightstreamer clustering §2.2.1.

use std::borrow::Cow;

/// Returns the comparable form of `raw`: lower case, without port and trailing dot; `[v6]` stays bracketed.
pub fn normalise(raw: &str) -> Cow<'_, str> {
    let raw = raw.trim_matches([' ', '\t']);
    let bare = match raw.rsplit_once(':') {
        // The last colon of `[2001:db8::1]` is inside the brackets.
        Some((name, port)) if !port.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => raw,
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    }
}

/// Returns a name of the configuration in the form that clients send: letters beyond ASCII become `xn--…`
/// (UTS 46, as in browsers). An illegal name stays unchanged, for its own check to refuse.
pub fn to_ascii(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    let (star, plain) = match name.strip_prefix("*.") {
        Some(plain) => ("*.", plain),
        None => ("", name),
    };
    match idna::domain_to_ascii_strict(plain) {
        Ok(ascii) => Cow::Owned(format!("{star}{ascii}")),
        Err(_) => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::{normalise, to_ascii};

    #[test]
    fn names_beyond_ascii_become_what_clients_send() {
        for (name, want) in [
            ("push.mycompany.com", "push.mycompany.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("a b.ü", "a b.ü"),
        ] {
            assert_eq!(to_ascii(name), want, "{name}");
        }
    }

    #[test]
    fn names_are_compared_without_case_port_and_dot() {
        for (raw, want) in [
            ("", ""),
            (":80", ""),
            (".", ""),
            ("push.mycompany.com", "push.mycompany.com"),
            ("PUSH.MyCompany.com:8443", "push.mycompany.com"),
            ("push.mycompany.com.", "push.mycompany.com"),
            ("push.mycompany.com.:80", "push.mycompany.com"),
            ("push.mycompany.com:", "push.mycompany.com"),
            ("push:evil", "push:evil"),
            ("[2001:DB8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            (" push ", "push"),
        ] {
            assert_eq!(normalise(raw), want, "{raw}");
        }
    }
}
