//! The integration tests: the real program between real clients and real nodes.

/// `pushgate demo` in a browser.
mod demo;
