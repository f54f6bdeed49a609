//! Passes on the crate that carries OpenSSL 4 to openssl-sys, which asks for the one of OpenSSL 3.

pub use current::*;
