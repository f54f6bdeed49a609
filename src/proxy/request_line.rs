//! Keeps method, host and path of a request for the access line at the flow's end, perhaps days later.

use std::sync::Arc;

/// Method, host and path in one allocation, which clones share. A silent flow keeps it.
#[derive(Clone, Default)]
pub struct RequestLine {
    all: Option<Arc<str>>,
    host: u32,
    path: u32,
}

impl RequestLine {
    /// Joins a method, a normalised host and a path. The path includes the query if queries are logged. All
    /// come from one head, far below 4 GiB.
    pub fn new(method: &str, host: &str, path: &str) -> Self {
        RequestLine {
            all: Some([method, host, path].concat().into()),
            host: method.len() as u32,
            path: (method.len() + host.len()) as u32,
        }
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.parts().1
    }

    /// Returns method, host and path; all are empty at layer 4.
    pub fn parts(&self) -> (&str, &str, &str) {
        let all = self.all.as_deref().unwrap_or_default();
        let (front, path) = all.split_at(self.path as usize);
        let (method, host) = front.split_at(self.host as usize);
        (method, host, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_what_they_were() {
        for parts in [("GET", "a.example", "/x?y"), ("", "", ""), ("M", "", "/ü")] {
            let (method, host, path) = parts;
            assert_eq!(RequestLine::new(method, host, path).parts(), parts);
        }
        assert_eq!(RequestLine::default().parts(), ("", "", ""));
    }
}
