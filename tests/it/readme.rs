//! Checks the documents: README's configuration is sound, and no link of ours is dead.
//!
//! In: the Markdown files and the YAML in them. Out: the verdict of `pushgate check`. The test makes the
//! certificates that the configurations name.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::certs::{Certs, Key};

/// Blocks of ```` ```LANGUAGE ```` in a Markdown text.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("\n```{language}\n");
    let after = text.split(open.as_str()).skip(1);
    after
        .filter_map(|rest| rest.split("\n```").next())
        .collect()
}

fn document(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `pushgate check` on `yaml`, next to certificates for the guide's names.
fn check(yaml: &str) -> (bool, String) {
    let certs = Certs::new();
    certs.leaf("wildcard", &["*.mycompany.com"], Key::Ecdsa);
    for domain in ["my", "our"] {
        let names = [&format!("*.{domain}company.com")[..]];
        for end in ["", "1", "2", "wildcard"] {
            certs.leaf(&format!("{domain}{end}"), &names, Key::Ecdsa);
        }
    }
    for name in ["push", "push1", "push2"] {
        certs.leaf(name, &[&format!("{name}.mycompany.com")], Key::Ecdsa);
    }
    let file = certs.dir().join("edge.yaml");
    std::fs::write(&file, yaml).expect("write the configuration");
    let run = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .expect("the built program starts");
    let told = [run.stdout, run.stderr].concat();
    (
        run.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    )
}

/// Aim: the first configuration that a newcomer copies is sound. Fails if one of its keys is renamed, or if a
/// pinned host has no certificate any more.
#[test]
fn first_configuration_is_sound() {
    let readme = document("README.md");
    let yaml = blocks(&readme, "yaml");
    assert_eq!(yaml.len(), 1, "README has one YAML block");
    let (good, told) = check(yaml[0]);
    assert!(good, "{told}");
    assert!(
        told.contains("ok (1 listeners, 1 pools, 2 nodes)"),
        "{told}"
    );
    // Tests this test: an unknown word is refused.
    let (good, told) = check(&yaml[0].replace("nodes: [ls1", "balanc: hash\n    nodes: [ls1"));
    assert!(!good && told.contains("did you mean `balance`"), "{told}");
}

/// Aim: each option's file is sound as it stands in `conf/`. Fails as above.
#[test]
fn option_files_are_sound() {
    let entries = std::fs::read_dir(root().join("conf")).expect("the folder is there");
    let paths = entries.map(|e| e.expect("an entry").path());
    let yaml: Vec<_> = paths
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    assert!(yaml.len() > 20, "{yaml:?}");
    for path in yaml {
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let (good, told) = check(&text);
        assert!(good, "{}: {told}", path.display());
    }
}

/// Aim: the configurations of the package and of the Kubernetes example are sound. Fails as above. The files
/// that a secret would hold are left out.
#[test]
fn installed_files_are_sound() {
    let changes = [
        ("/var/log/pushgate/", ""),
        ("0.0.0.0:9900, token_file: admin.token", "127.0.0.1:9900"),
        (", key_file: cookie.keys", ""),
        ("tls.crt", "push.pem"),
        ("tls.key", "push.key"),
    ];
    for path in [
        "conf/install/pushgate.yaml",
        "conf/kubernetes/pushgate.yaml",
        "conf/pair/pushgate.yaml",
    ] {
        let text = document(path);
        let text = changes
            .iter()
            .fold(text, |t, (from, to)| t.replace(from, to));
        let (good, told) = check(&text);
        assert!(good, "{path}: {told}");
    }
}

/// Aim: each link between documents, or to a file of this tree, has a target. Fails if a file is renamed
/// without its links.
#[test]
fn links_lead_somewhere() {
    let pages = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let mut files = pages.map(|page| root().join(page)).to_vec();
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
        let paths = entries.map(|e| e.expect("an entry").path());
        files.extend(paths.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    let mut dead = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a document");
        dead.extend(
            targets(&text)
                .filter(|t| !exists(file, t))
                .map(|t| format!("{}: {t}", file.display())),
        );
    }
    assert_eq!(dead, [] as [&str; 0]);
}

/// Targets of `[…](target)` that are files.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("](").skip(1);
    let all = after.filter_map(|rest| rest.split(')').next());
    all.filter(|t| !t.starts_with("http") && !t.contains(char::is_whitespace))
}

fn exists(from: &Path, target: &str) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => from.to_owned(),
        _ => from.parent().expect("a file has a folder").join(file),
    };
    // Exempt: a document may link to it before it is written.
    if path.ends_with("benches/README.md") {
        return true;
    }
    heading.is_empty() && path.exists()
        || std::fs::read_to_string(path)
            .is_ok_and(|text| text.lines().any(|line| anchor(line) == heading))
}

/// The anchor of a heading: lower case, blanks to `-`, without punctuation; empty for other lines.
fn anchor(line: &str) -> String {
    if !line.starts_with('#') {
        return String::new();
    }
    let text = line.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Aim: the page of metrics lists exactly the program's metrics. Fails if one is renamed, gets a label, or is
/// not documented.
#[test]
fn metrics_are_documented() {
    let page = document("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `pushgate_"));
    let told: Vec<&str> = rows.collect();
    let table = pushgate::observe::metrics::TABLE.iter();
    let mut expected: Vec<String> = table.clone().map(|metric| row(*metric)).collect();
    for (old, new) in pushgate::observe::metrics::OLD_NAMES {
        let (_, kind, labels, _) = table.clone().find(|m| m.0 == *new).expect("its new name");
        let meaning = pushgate::observe::metrics::deprecated(new);
        expected.push(row((old, kind, labels, &meaning)));
    }
    assert_eq!(told, expected);
}

fn row((name, kind, labels, meaning): (&str, &str, &[&str], &str)) -> String {
    let kind = match kind {
        "plain_gauge" | "ratio" => "gauge",
        "plain_counter" => "counter",
        "seconds" | "long_seconds" | "bytes" => "histogram",
        kind => kind,
    };
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = match labels.is_empty() {
        true => "–".to_owned(),
        false => labels.join(", "),
    };
    format!("| `{name}` | {kind} | {labels} | {} |", meaning.trim())
}

/// Aim: every path of the admin endpoint has a row on the page of operations. Fails if a path is added or
/// renamed without it.
#[test]
fn admin_paths_are_documented() {
    let page = document("docs/operations.md");
    let sources = ["src/control/admin.rs", "src/control/admin/dashboard.rs"].map(document);
    let routes = sources
        .iter()
        .flat_map(|text| text.split(".route(").skip(1));
    let paths = routes.filter_map(|rest| rest.split('"').nth(1));
    // The page and its files are added from a list, so what follows there is no path.
    let paths: Vec<&str> = paths.filter(|p| p.starts_with('/')).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        let path = path.replace("{node}", "NAME").replace("{pool}", "NAME");
        let told = match path.strip_suffix("{order}") {
            Some(all) => page.contains(&format!("| `POST {all}drain` |")),
            None => ["GET", "POST"]
                .iter()
                .any(|m| page.contains(&format!("| `{m} {path}` |"))),
        };
        assert!(told, "{path}");
    }
}
