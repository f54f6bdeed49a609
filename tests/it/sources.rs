//! The guides' sections: code that fulfils a section cites it, and so does a test that proves it.
//!
//! In: the comments of the sources. Out: a section without a citation, or a citation of a missing section.
//! STYLE has the form: `Lightstreamer clustering §3.2.2.3`, `Diffusion load balancers, "Connection pooling"`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Table of contents of "Clustering for Load Balancing and Fail Over", 16/04/2018.
const SECTIONS: &[&str] = &[
    "1",
    "2",
    "2.1",
    "2.1.1",
    "2.1.2",
    "2.2",
    "2.2.1",
    "2.2.2",
    "3",
    "3.1",
    "3.1.1",
    "3.1.1.1",
    "3.1.2",
    "3.2",
    "3.2.1",
    "3.2.1.1",
    "3.2.1.1.1",
    "3.2.1.2",
    "3.2.1.3",
    "3.2.1.4",
    "3.2.2",
    "3.2.2.1",
    "3.2.2.1.1",
    "3.2.2.2",
    "3.2.2.3",
    "3.2.2.4",
    "4",
    "5",
    "5.1",
    "5.2",
    "6",
];

/// The points of "Common issues when using a load balancer".
const POINTS: &[&str] = &[
    "Load balancer closing silent connections",
    "Connection pooling",
    "Reuse TCP connection",
    "sticky-by-IP",
    "TCP retransmission timeout",
];

/// Exceptions, where no citation is required: section, which files, why.
const NOT_APPLICABLE: &[(&str, Who, &str)] = &[(
    "5.2",
    Who::Code,
    "nothing at the edge: the servers limit their sessions' age",
)];

/// Which files cite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Code,
    Test,
}

/// Citations in the comments of one kind of files.
#[derive(Default)]
struct Cited {
    sections: BTreeSet<String>,
    points: BTreeSet<&'static str>,
}

impl Cited {
    fn read(files: &[PathBuf]) -> Cited {
        let mut cited = Cited::default();
        for file in files {
            let text = std::fs::read_to_string(file).expect("a source file");
            cited.take(&comments(&text));
        }
        cited
    }

    fn take(&mut self, comments: &str) {
        for rest in comments.split("Lightstreamer clustering").skip(1) {
            // A section after one of these belongs to another source.
            let end = ["RFC", "FAULTS", "Diffusion", ";"];
            let end = end.iter().filter_map(|mark| rest.find(mark)).min();
            let rest = &rest[..end.unwrap_or(rest.len())];
            for section in rest.split('§').skip(1) {
                let number = |c: char| c.is_ascii_digit() || c == '.';
                let end = section.find(|c| !number(c)).unwrap_or(section.len());
                let section = section[..end].trim_end_matches('.');
                self.sections.insert(section.to_owned());
            }
        }
        let quoted = comments.split("Diffusion load balancers").skip(1);
        let all = quoted
            .clone()
            .any(|rest| rest.trim_start_matches(',').starts_with(" all "));
        for point in POINTS {
            let quote = |rest: &str| rest.contains(&format!("\"{point}"));
            if all || quoted.clone().any(quote) {
                self.points.insert(point);
            }
        }
    }
}

/// The text of all comments, joined by single blanks; a blank line between comment blocks stays.
fn comments(text: &str) -> String {
    let words = text.lines().map(|line| {
        let line = line.trim();
        let comment = line.find("//").map(|at| &line[at..]);
        comment.map_or("\n", |c| c.trim_start_matches(['/', '!', ' ']))
    });
    let joined = words.collect::<Vec<_>>().join(" ");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All `.rs` files below `folder`.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// Files of `src/` and `plugins/`, then test files, unit tests included.
fn both() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let is_test = |path: &PathBuf| {
        // Relative to the checkout, which may itself be in a folder called tests.
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR"));
        let path = path.expect("found below it").display().to_string();
        path.contains("/tests/") || path.ends_with("/tests.rs")
    };
    let own = ["src", "plugins"].map(sources).concat();
    let (mut tests, code): (Vec<_>, Vec<_>) = own.into_iter().partition(is_test);
    tests.extend(sources("tests/it"));
    tests.retain(|path| !path.ends_with("sources.rs"));
    (code, tests)
}

/// Aim: no section of either guide is forgotten. Fails if no code or no test cites one.
#[test]
fn each_section_is_cited_by_code_and_by_a_test() {
    let (code, tests) = both();
    let mut missing = Vec::new();
    for (who, cited) in [
        (Who::Code, Cited::read(&code)),
        (Who::Test, Cited::read(&tests)),
    ] {
        let excused = |what: &str| {
            let mut list = NOT_APPLICABLE.iter();
            list.any(|(not, whom, why)| *not == what && *whom == who && !why.is_empty())
        };
        let sections = SECTIONS.iter().filter(|s| !cited.sections.contains(**s));
        missing.extend(
            sections
                .filter(|s| !excused(s))
                .map(|s| format!("§{s}: no {who:?}")),
        );
        let points = POINTS.iter().filter(|p| !cited.points.contains(**p));
        missing.extend(
            points
                .filter(|p| !excused(p))
                .map(|p| format!("{p}: no {who:?}")),
        );
        let unknown = cited
            .sections
            .iter()
            .filter(|s| !SECTIONS.contains(&s.as_str()));
        missing.extend(unknown.map(|s| format!("§{s}: the guide has no such section")));
    }
    assert_eq!(missing, [] as [&str; 0]);
}

/// Tests this test: the parsing of citations.
#[test]
fn citations_are_read_as_they_are_written() {
    let mut cited = Cited::default();
    cited.take(&comments(
        "//! Source: Lightstreamer clustering §2.1.2 (Option 1.A.2), §4,\n//! §5.1; RFC 6265 §4.1.\n\
         fn f() {}\n    /// RFC 9112 §6; Lightstreamer clustering §3.\n\
         // Diffusion load balancers, \"Connection pooling\", \"sticky-by-IP\".\n",
    ));
    let sections: Vec<_> = cited.sections.iter().map(String::as_str).collect();
    assert_eq!(sections, ["2.1.2", "3", "4", "5.1"]);
    let points: Vec<_> = cited.points.into_iter().collect();
    assert_eq!(points, ["Connection pooling", "sticky-by-IP"]);
}
