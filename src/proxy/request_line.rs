//! Keeps method, host, path and user agent of a request for the access line at the flow's end, perhaps days later.

use std::sync::Arc;

/// Method, host, path and user agent in one allocation, which clones share. A silent flow keeps it.
#[derive(Clone, Default)]
pub struct RequestLine {
    all: Option<Arc<str>>,
    host: u32,
    path: u32,
    agent: u32,
}

/// Longest user agent that is kept, in bytes. Those of browsers have 120.
const MAX_AGENT: usize = 256;

impl RequestLine {
    /// Joins a method, a normalised host and a path, and the beginning of a user agent. The path includes the query if
    /// queries are logged. All come from one head, far below 4 GiB.
    pub fn new(method: &str, host: &str, path: &str, agent: &[u8]) -> Self {
        let agent = &agent[..agent.len().min(MAX_AGENT)];
        let agent = String::from_utf8_lossy(agent);
        RequestLine {
            all: Some([method, host, path, &agent].concat().into()),
            host: method.len() as u32,
            path: (method.len() + host.len()) as u32,
            agent: (method.len() + host.len() + path.len()) as u32,
        }
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.parts().1
    }

    /// Returns method, host and path; all are empty at layer 4.
    pub fn parts(&self) -> (&str, &str, &str) {
        let (front, _) = self.all().split_at(self.agent as usize);
        let (front, path) = front.split_at(self.path as usize);
        let (method, host) = front.split_at(self.host as usize);
        (method, host, path)
    }

    /// Returns the beginning of the user agent; empty if none was kept.
    pub fn agent(&self) -> &str {
        self.all().split_at(self.agent as usize).1
    }

    fn all(&self) -> &str {
        self.all.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_what_they_were() {
        for parts in [("GET", "a.example", "/x?y"), ("", "", ""), ("M", "", "/ü")] {
            let (method, host, path) = parts;
            for agent in ["", "a b"] {
                let line = RequestLine::new(method, host, path, agent.as_bytes());
                assert_eq!((line.parts(), line.agent()), (parts, agent));
            }
        }
        let long = RequestLine::new("GET", "", "/", &[b'a'; 1000]);
        assert_eq!(long.agent().len(), MAX_AGENT);
        assert_eq!(RequestLine::default().parts(), ("", "", ""));
    }
}
