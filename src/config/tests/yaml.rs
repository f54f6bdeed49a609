//! What YAML itself forbids, and files that stop half-way.

use super::{Case, prints};

#[test]
fn each_fault_is_told_with_its_place() {
    prints(CASES);
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "all",
        "",
        &["f:1:1: the file is empty; expected at least `listeners:`"],
    ),
    (
        "all",
        "# only a comment\n",
        &["f:1:1: the file is empty; expected at least `listeners:`"],
    ),
    (
        "all",
        "listeners:\n",
        &["f:1:10: listeners: found nothing; expected a list, such as `[a, b]`"],
    ),
    (
        "all",
        "listeners: []\n",
        &["f:1:12: listeners: no listener; expected at least one, else no client can come in"],
    ),
    (
        "all",
        "- listeners\n",
        &["f:1:1: found a list; expected a block of keys (`admin`, …)"],
    ),
    (
        "all",
        "just text\n",
        &["f:1:1: found `just text`; expected a block of keys (`admin`, …)"],
    ),
    (
        "all",
        "listeners:\n\t- name: a\n",
        &["f:2:1: listeners: a tab indents this line; expected spaces"],
    ),
    (
        "all",
        "listeners:\n  - name: a\n    tls:\n    \th2: true\n",
        &["f:4:5: listeners[0].tls: a tab indents this line; expected spaces"],
    ),
    (
        "all",
        "listeners:\n  - name: a\n    bind: [127.0.0.1:1\n",
        &["f:4:1: listeners[0].bind: not YAML: while parsing a flow sequence, expected ',' or ']'"],
    ),
    (
        "all",
        "listeners:\n  - name: \"a\n",
        &[
            "f:2:11: listeners[0].name: not YAML: while scanning a quoted scalar, found unexpected end of stream",
        ],
    ),
    (
        "all",
        "listeners:\n  - name: a\n    bind: [127.0.0.1:1]\n    mo",
        &["f:4:7: listeners[0]: the text before this place has no `:`; expected `key: value`"],
    ),
    (
        "all",
        "listeners:\n  - name: a\n    bind: [127.0.0.1:1]\n     mode: http\n",
        &[
            "f:4:6: listeners[0]: this line continues no block above; expected the indentation of its neighbours",
        ],
    ),
    (
        "all",
        "listeners:\n  - name: a\n   bind: [127.0.0.1:1]\n",
        &[
            "f:3:4: listeners: this line continues no block above; expected the indentation of its neighbours",
        ],
    ),
    (
        "all",
        "listeners:\n  - bind: [[::1]:80]\n",
        &[
            "f:2:12: listeners[0].bind[0]: a list or block is used as a key; expected a word (an IPv6 address needs quotes: `\"[::1]:80\"`)",
        ],
    ),
    (
        "all",
        "admin: bind: 127.0.0.1:1\n",
        &[
            "f:1:12: a second `:` in one value; expected quotes around the value, or the key in its own line",
        ],
    ),
    // Seen by the fuzzer: after a last line without a line end the parser counts a line too many.
    (
        "all",
        "listeners:\n  - name: { a",
        &[
            "f:2:14: listeners[0].name: the list or block in brackets does not end here; expected `,` or the bracket that closes it; …",
        ],
    ),
    (
        "all",
        "? ",
        &[
            "f:1:1: listeners: no listener; expected at least one, else no client can come in",
            "f:1:3: [\"\"]: unknown key ``; expected one of …",
        ],
    ),
    (
        "all",
        "threads: 1\nthreads: 2\n",
        &[
            "f:1:1: listeners: no listener; expected at least one, else no client can come in",
            "f:2:1: threads: key `threads` is there twice, first in line 1",
        ],
    ),
    (
        "all",
        "nodes:\n  n: { address: 127.0.0.1:1, address: 127.0.0.1:2 }\n  n: {}\n",
        &[
            "f:1:1: listeners: no listener; expected at least one, else no client can come in",
            "f:2:30: nodes.n.address: key `address` is there twice, first in line 2",
            "f:3:3: nodes.n: key `n` is there twice, first in line 2",
        ],
    ),
    (
        "all",
        "threads: 1\n---\nthreads: 2\n",
        &["f:2:1: a second YAML document starts here; expected one document"],
    ),
    (
        "all",
        "a: *b\n",
        &[
            "f:1:4: a: this alias stands for nothing; expected an anchor of that name above, such as `&name`",
        ],
    ),
    (
        "all",
        "a: &a [*a]\n",
        &["f:1:8: a[0]: this alias is inside the value it stands for"],
    ),
    (
        "all",
        "a: !!int 1\n",
        &["f:1:4: a: YAML tag `tag:yaml.org,2002:!int`; expected a value without tag"],
    ),
    (
        "all",
        "a: !foo [1]\n",
        &["f:1:4: a: YAML tag `!foo`; expected a value without tag"],
    ),
    (
        "all",
        "? [a]\n: b\n",
        &[
            "f:1:3: a list or block is used as a key; expected a word (an IPv6 address needs quotes: `\"[::1]:80\"`)",
        ],
    ),
    (
        "all",
        "threads: @1\n",
        &["f:1:10: threads: not YAML: unexpected character: `@'"],
    ),
    (
        "all",
        "\u{0}\u{1}",
        &["f:1:1: character U+0000 is not allowed in YAML; expected printable text; …"],
    ),
];

/// Aim: if serde_yaml refuses what our reader accepted, the fault has a place and no word of serde_yaml's.
/// Fails if its message is passed on.
#[test]
fn the_library_never_speaks_to_a_person() {
    // YAML 1.2.2 §7.4.2 ends such a key after 1,024 characters; one of the two readers insists.
    let tail = format!(
        "plugins: [{{ path_route: {{ paths: {{ /{}: n }} }} }}]",
        "a".repeat(1100)
    );
    let faults = super::Config::parse(&super::text("listener", &tail), "f", super::files().path());
    let printed = faults.expect_err("a long key").to_string();
    let told = "f:9:1141: listeners[0].plugins[0].path_route.paths[\"/aaa…\"]: two YAML readers differ \
                about this place; expected a plainer spelling: short keys, quotes around text";
    assert!(super::fits(&printed, told), "{printed}");
}
