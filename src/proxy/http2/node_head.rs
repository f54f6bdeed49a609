//! Turns a client's head into one a node may be sent: asked by path, with one Cookie line.
//!
//! In: the head Pingora is about to send. Out: the same head, corrected; plugins edit it afterwards.
//! Source: RFC 9112 §3.2.1 (origin-form), RFC 9113 §8.2.3 (crumbs of a cookie).

use http::HeaderValue;
use http::header::COOKIE;
use pingora::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;

/// Corrects `head`. `h2`: the client speaks HTTP/2.
///
/// Errors: never for a head that was judged legal.
pub fn correct(head: &mut RequestHeader, h2: bool) -> Result<()> {
    if !head.raw_path().starts_with(b"/") && head.raw_path() != b"*" {
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
        head.set_raw_path(path.to_owned().as_bytes())?;
    }
    let crumbs = head.headers.get_all(COOKIE);
    if h2 && crumbs.iter().nth(1).is_some() {
        let crumbs: Vec<_> = crumbs.iter().map(HeaderValue::as_bytes).collect();
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
        let whole = whole.or_err(ErrorType::InvalidHTTPHeader, "cookie")?;
        head.insert_header(COOKIE, whole)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(target: &str, cookies: &[&str], h2: bool) -> (String, Vec<String>) {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).expect("a head");
        for cookie in cookies {
            let value = (*cookie).to_owned();
            head.append_header(COOKIE, value).expect("a cookie");
        }
        correct(&mut head, h2).expect("a legal head");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let cookies = head.headers.get_all(COOKIE).iter();
        let cookies = cookies.map(|v| text(v.as_bytes())).collect();
        (text(head.raw_path()), cookies)
    }

    /// Fails if a target of origin-form changes, or if an absolute one keeps its authority.
    #[test]
    fn targets_are_paths() {
        for (target, expected) in [
            ("/", "/"),
            ("/a?b=http://c", "/a?b=http://c"),
            ("*", "*"),
            ("http://a", "/"),
            ("http://a/b?c", "/b?c"),
            ("HTTPS://a/b", "/b"),
            ("http://a?c", "/?c"),
        ] {
            assert_eq!(corrected(target, &[], false).0, expected, "{target}");
        }
    }

    /// Fails if crumbs reach an HTTP/1 node apart, or if an HTTP/1 client's lines are touched.
    #[test]
    fn crumbs_are_one_cookie() {
        assert_eq!(corrected("/", &["a=1", "b=2"], true).1, ["a=1; b=2"]);
        assert_eq!(corrected("/", &["a=1"], true).1, ["a=1"]);
        assert_eq!(corrected("/", &["a=1", "b=2"], false).1, ["a=1", "b=2"]);
    }
}
