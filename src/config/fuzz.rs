//! Fuzz target `configuration`: the text of a configuration file.
//!
//! Fails if a fault has no place inside the text, if faults are out of order, or if a message could forge a
//! second line. Source: the style guide's rule that every fault has file, line, column and path.

use std::path::Path;

use super::Config;

/// Reads `data` as a file in a folder that does not exist, so that no file it names is found.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Err(faults) = Config::parse(text, "f", Path::new("/nonexistent")) else {
        return;
    };
    assert!(faults.iter().next().is_some(), "refused without a fault");
    let lines: Vec<&str> = text.split('\n').collect();
    // A lone CR ends a line for YAML but not for editors, and the parser may count it either way.
    let is_plain = !text.replace("\r\n", "").contains('\r');
    let mut last = (0, 0);
    // An included file has lines of its own.
    for fault in faults.iter().filter(|fault| fault.file == "f") {
        let at = (fault.line, fault.column);
        assert!(at >= last, "{fault} is out of order");
        last = at;
        assert!(at.0 > 0 && at.1 > 0, "no place: {fault}");
        let told = fault.to_string();
        assert!(!told.chars().any(char::is_control), "{told:?}");
        if !is_plain {
            continue;
        }
        let line = at.0.checked_sub(1).and_then(|i| lines.get(i));
        let line = line.unwrap_or_else(|| panic!("line of {fault}"));
        let columns = line.chars().count() + 1;
        assert!(at.1 <= columns, "column of {fault}: {columns} in its line");
    }
}
