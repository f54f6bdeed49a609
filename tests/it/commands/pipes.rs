//! A configuration that can be read once: standard input.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{WARNED, err, out};

/// Aim: `check` reads a pipe once and still knows each place, and says if the file with every default is too large to
/// be read. Fails if the file is opened again, which would wait for ever. Source: issue 15 §3.
#[test]
fn a_pipe_is_checked_like_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let piped = |args: &[&str], text: &str, env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
        let command = command.args(args).current_dir(dir.path());
        let command = command.envs(env.iter().copied()).stdin(Stdio::piped());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the built program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("write");
        drop(stdin);
        child.wait_with_output().expect("an end")
    };
    let done = piped(&["check", "/dev/stdin"], WARNED, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    let place = "/dev/stdin:7:42: listeners[0].plugins[0].sticky_cookie.secure: warning: ";
    assert!(err(&done).starts_with(place), "{}", err(&done));

    let variables = WARNED.replace("127.0.0.1:2", "\"${NODE}\"");
    let env = [("NODE", "10.9.8.7:80")];
    let printed = piped(&["-T", "-c", "/dev/stdin"], &variables, &env);
    let text = out(&printed);
    assert!(text.contains("address: ${NODE}"), "{text}{}", err(&printed));
    assert!(!text.contains("10.9.8.7"), "{text}");
    let again = piped(&["-T", "-c", "/dev/stdin"], &text, &env);
    assert_eq!(out(&again), text, "{}", err(&again));

    let listeners: String = (1000..1800)
        .map(|n| format!("  - {{ name: l{n}, bind: [127.0.0.1:{n}], mode: http, to: n1 }}\n"))
        .collect();
    let many = format!("nodes: {{ n1: {{ address: 127.0.0.1:2 }} }}\nlisteners:\n{listeners}");
    let printed = piped(&["-T", "-c", "/dev/stdin"], &many, &[]);
    assert_eq!(printed.status.code(), Some(0));
    let said = err(&printed);
    let words = "the file cannot be read again: more than 50000 values";
    assert!(
        said.contains(words),
        "{}",
        &said[said.len().saturating_sub(500)..]
    );
}
