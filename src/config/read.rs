//! Reads the configuration file, and checks kind, size and encoding before any YAML is parsed.
//!
//! In: a path. Out: its text without byte order mark, or one [`ConfigError`].

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{ConfigError, Severity};

/// Largest file, in bytes. A thousand listeners with ten routes each take a quarter of it; a larger file is
/// some other file, and must not fill memory.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Reads `path`.
///
/// Errors: the file cannot be read, is a directory, is larger than [`MAX_FILE`], or is not UTF-8.
pub(super) fn read(path: &Path) -> Result<String, Box<ConfigError>> {
    let whole = |message: String, expected: Option<String>| {
        Box::new(ConfigError {
            file: path.display().to_string(),
            line: 0,
            column: 0,
            path: String::new(),
            message,
            expected,
            suggestion: None,
            severity: Severity::Error,
        })
    };
    let unreadable = |e: std::io::Error| whole(format!("cannot be read: {e}"), None);
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(whole("is a directory".into(), Some("a YAML file".into())));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large, also if it is a pipe.
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole(
            "is too large".into(),
            Some(format!("at most {MAX_FILE} bytes")),
        ));
    }
    decode(bytes).map_err(|at| {
        let mut fault = whole("not UTF-8".into(), Some("UTF-8 text".into()));
        (fault.line, fault.column) = at;
        fault
    })
}

/// Decodes UTF-8 without a byte order mark. Errors: line and column of the first wrong byte.
fn decode(bytes: Vec<u8>) -> Result<String, (usize, usize)> {
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(e.as_bytes().get(..good).unwrap_or_default());
        let last = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, last.chars().count() + 1)
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_text_is_refused_with_its_place() {
        let dir = tempfile::tempdir().expect("a temporary file");
        let path = dir.path().join("pushgate.yaml");
        let name = path.display().to_string();
        let cases: [(Option<Vec<u8>>, String); 4] = [
            (
                None,
                format!("{name}: cannot be read: No such file or directory (os error 2)"),
            ),
            (
                Some(b"a: 1\nb\xc3\xa4\xff".to_vec()),
                format!("{name}:2:3: not UTF-8; expected UTF-8 text"),
            ),
            (
                Some(vec![b'#'; MAX_FILE as usize + 1]),
                format!("{name}: is too large; expected at most 1048576 bytes"),
            ),
            (
                Some(vec![b'#'; 10 * 1024 * 1024]),
                format!("{name}: is too large; expected at most 1048576 bytes"),
            ),
        ];
        for (bytes, expected) in cases {
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).expect("a temporary file");
            }
            assert_eq!(read(&path).expect_err("refused").to_string(), expected);
        }
        let directory = read(dir.path()).expect_err("refused");
        assert_eq!(
            (directory.line, directory.message.as_str()),
            (0, "is a directory")
        );
    }

    #[test]
    fn the_largest_file_and_a_byte_order_mark_are_taken() {
        let dir = tempfile::tempdir().expect("a temporary file");
        let path = dir.path().join("pushgate.yaml");
        std::fs::write(&path, vec![b'#'; MAX_FILE as usize]).expect("a temporary file");
        assert_eq!(
            read(&path).expect("a temporary file").len() as u64,
            MAX_FILE
        );
        std::fs::write(&path, "\u{feff}threads: 1\r\n").expect("a temporary file");
        assert_eq!(read(&path).expect("a temporary file"), "threads: 1\r\n");
    }
}
