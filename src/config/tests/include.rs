//! Files that a file includes: what they become together, and what a fault says of them.

use std::path::Path;

use super::{Config, fits};

const MAIN: &str = "\
include: [conf.d, more.yaml]
nodes: { n: { address: 10.0.0.1:80 } }
listeners:
  - { name: a, bind: [127.0.0.1:1], mode: http, to: n }
";

/// Writes these files, and loads the first one.
fn load(dir: &Path, files: &[(&str, &str)]) -> Result<Config, String> {
    let _ = std::fs::remove_dir_all(dir.join("conf.d"));
    std::fs::create_dir_all(dir.join("conf.d")).expect("a folder");
    std::fs::write(dir.join("more.yaml"), "").expect("a file");
    std::fs::write(dir.join("edge.yaml"), MAIN).expect("a file");
    for (file, text) in files {
        std::fs::write(dir.join(file), text).expect("a file");
    }
    let loaded = Config::load(&dir.join("edge.yaml"));
    loaded.map_err(|faults| {
        faults
            .to_string()
            .replace(&format!("{}/", dir.display()), "")
    })
}

/// Aim: the blocks of all files are one configuration, listeners in the order of the files' names; a folder's other
/// files, and hidden ones, are left alone. Fails if the program runs the first file alone.
#[test]
fn all_files_are_one_configuration() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = load(
        dir.path(),
        &[
            (
                "conf.d/b.yaml",
                "listeners: [{ name: c, bind: [127.0.0.1:3], mode: http, to: n }]\n",
            ),
            (
                "conf.d/B.yaml",
                "nodes: { m: { address: 10.0.0.2:80 } }\npools: { p: { nodes: [n, m] } }\n\
                 listeners:\n  - { name: b, bind: [127.0.0.1:2], mode: http, to: p }\n\
                 access: &x {}\n",
            ),
        ],
    );
    let refused = config.expect_err("an unknown key");
    assert!(
        refused.starts_with("conf.d/B.yaml:5:1: access: unknown key `access`; "),
        "{refused}"
    );
    let whole = [
        (
            "conf.d/b.yaml",
            "listeners: [{ name: c, bind: [127.0.0.1:3], mode: http, to: n }]\n",
        ),
        (
            "conf.d/B.yaml",
            "nodes: { m: { address: 10.0.0.2:80 } }\npools: { p: { nodes: [n, m] } }\n\
             listeners:\n  - { name: b, bind: [127.0.0.1:2], mode: http, to: p }\n",
        ),
        ("conf.d/empty.yaml", "# nothing yet\n"),
        ("conf.d/.hidden.yaml", "wrong: 1\n"),
        ("conf.d/b.yaml.bak", "wrong: 1\n"),
        ("more.yaml", "threads: 3\n"),
    ];
    load(dir.path(), &whole).expect("sound");
    let loaded = Config::load_placed(&dir.path().join("edge.yaml"));
    let (config, places) = loaded.unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<_> = config.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(config.nodes.len(), 2);
    assert_eq!(config.pools["p"].nodes, ["n", "m"]);
    assert_eq!(config.threads.map(|n| n.get()), Some(3));
    let place = places.of(["listeners", "1", "to"]);
    let place = place.replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(place, "conf.d/B.yaml:4:49: listeners[1].to");
}

const FAULTS: &[(&str, &str, &str)] = &[
    (
        "conf.d/a.yaml",
        "nodes:\n  n: { address: 10.0.0.2:80 }\n",
        "conf.d/a.yaml:2:3: nodes.n: `n` is there twice, first in line 2 of `edge.yaml`; expected each name once in all files",
    ),
    (
        "more.yaml",
        "include: [x.yaml]\n",
        "more.yaml:1:1: include: an included file includes others; expected all of them in `include` of `edge.yaml`",
    ),
    (
        "conf.d/a.yaml",
        "threads: 1\nthreads: 2\n",
        "conf.d/a.yaml:2:1: threads: key `threads` is there twice, first in line 1",
    ),
    (
        "conf.d/a.yaml",
        "listeners: {}\n",
        "conf.d/a.yaml:1:1: listeners: key `listeners` is there twice, first in line 3 of `edge.yaml`",
    ),
    (
        "conf.d/a.yaml",
        "- a\n",
        "conf.d/a.yaml:1:1: found a list; expected a block of keys, as the first file is",
    ),
    (
        "conf.d/a.yaml",
        "nodes: [\n",
        "conf.d/a.yaml:2:1: nodes: not YAML: …",
    ),
    (
        "conf.d/a.yaml",
        "pools:\n  p: { nodes: [m] }\n",
        "conf.d/a.yaml:2:16: pools.p.nodes[0]: unknown node `m`; expected `n`",
    ),
    (
        "conf.d/a.yaml",
        "listeners:\n  - { name: a, bind: [127.0.0.1:2], mode: http, to: n }\n",
        "conf.d/a.yaml:2:13: listeners[1].name: a listener is already called `a`, in line 4 of `edge.yaml`; …",
    ),
    (
        "conf.d/a.yaml",
        "listeners:\n  - { name: b, bind: [127.0.0.1:1], mode: http, to: n }\n",
        "conf.d/a.yaml:2:23: listeners[1].bind[0]: `127.0.0.1:1` is already bound by listeners[0].bind[0] in line 4 of `edge.yaml`; …",
    ),
    (
        "edge.yaml",
        "include: [conf.d, none.d]\n",
        "edge.yaml:1:19: include[1]: `none.d` cannot be read: No such file …",
    ),
    (
        "edge.yaml",
        "include: [more.yaml, ./more.yaml]\n",
        "edge.yaml:1:22: include[1]: `./more.yaml` is included twice, or includes itself",
    ),
    (
        "edge.yaml",
        "include: [\"${NO_SUCH_VARIABLE:-.}\"]\n",
        "edge.yaml:1:11: include[0]: `./edge.yaml` is included twice, or includes itself",
    ),
    (
        "edge.yaml",
        "include: conf.d\nnodes: { n: { address: 127.0.0.1:2 } }\nlisteners: [{ name: a, bind: [127.0.0.1:1], mode: http, to: n }]\n",
        "edge.yaml:1:10: include: found `conf.d`; expected a list, such as `[a, b]`",
    ),
];

/// Aim: a fault names the file it is in, and both places of what is there twice. Fails if a later file replaces an
/// earlier one's block.
#[test]
fn faults_name_their_file() {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, text, expected) in FAULTS {
        let printed = load(dir.path(), &[(file, text)]).expect_err(text);
        assert!(fits(&printed, expected), "{text}: {printed}");
    }
    load(dir.path(), &[]).expect("sound");
    std::fs::write(dir.path().join("conf.d/bytes.yaml"), b"a: \xff\n").expect("a file");
    let printed = Config::load(&dir.path().join("edge.yaml")).expect_err("bytes");
    let expected = "conf.d/bytes.yaml:1:4: not UTF-8; expected UTF-8 text";
    assert!(printed.to_string().ends_with(expected), "{printed}");
}

/// Aim: all files together have the limits of one. Fails if only each file is bounded.
#[test]
fn all_files_share_the_limits_of_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let comment = format!("#{}\n", "x".repeat(600_000));
    let printed = load(
        dir.path(),
        &[("conf.d/a.yaml", &comment), ("conf.d/b.yaml", &comment)],
    );
    let expected = "edge.yaml:1:11: include[0]: `conf.d/b.yaml` is too much: all files have more than 1048576 bytes";
    assert_eq!(printed.err().as_deref(), Some(expected));
    let list = format!("{{ x: [{}] }}\n", "1,".repeat(30_000));
    let files = [
        ("conf.d/a.yaml", &*format!("a: {list}")),
        ("conf.d/b.yaml", &*format!("b: {list}")),
    ];
    let printed = load(dir.path(), &files).expect_err("too much");
    assert!(
        printed.contains("all files have more than 50000 values"),
        "{printed}"
    );
    let many: Vec<_> = (0..1001)
        .map(|n| (format!("conf.d/{n}.yaml"), String::new()))
        .collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let printed = load(dir.path(), &many).expect_err("too many");
    assert!(
        fits(
            &printed,
            "edge.yaml:1:10: include: includes 1002 files; expected at most 1000"
        ),
        "{printed}"
    );
}
