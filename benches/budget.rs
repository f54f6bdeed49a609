//! Counts the instructions of each case under callgrind and compares them with a budget.
//!
//! In: the cases, and `budget.yaml` beside this file. Out: a table; exit code 1 if a case exceeds its
//! budget, with the functions that cost most. A count does not depend on the machine's load, so it can fail
//! a test, which a time cannot. The dev build is counted, because every test run has it. Its numbers are
//! far from those of a release, but they show work that is done twice.
//! `budget` checks; `budget run [CASE]` is what callgrind runs.

mod cases;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Counted runs of a case, after one run that fills caches.
const RUNS: u64 = 20;
/// A count below this share of its budget asks for a lower budget.
const ROOMY: f64 = 0.6;
/// Functions shown for a case over its budget.
const SHOWN: usize = 12;
/// The function that callgrind counts; when it returns, callgrind writes the count.
const MEASURED: &str = "budget::budget_measured";

type BoxError = Box<dyn Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        None => check(),
        Some("run") => {
            run(args.get(1));
            Ok(true)
        }
        Some(_) => Err("usage: budget [run [CASE]]".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("budget: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs each case, or only the one called `only`. Callgrind runs this.
fn run(only: Option<&String>) {
    for mut case in cases::cases() {
        if only.is_none_or(|name| *name == case.name) {
            (case.once)();
            budget_measured(&mut case.once);
        }
    }
}

#[inline(never)]
fn budget_measured(once: &mut dyn FnMut()) {
    // No closure here: its name would contain this function's name and match the pattern too.
    for _ in 0..RUNS {
        once();
    }
}

/// Prints the table. Returns whether every case is within its budget.
fn check() -> Result<bool, BoxError> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/budget.yaml");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut budgets: BTreeMap<String, u64> =
        serde_yaml::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    if !cfg!(target_arch = "x86_64") {
        println!("the budget is for x86_64: not checked");
        return Ok(true);
    }
    let names: Vec<String> = cases::cases().into_iter().map(|c| c.name).collect();
    let counts = totals(&callgrind(None)?)?;
    if counts.len() != names.len() {
        let (got, wanted) = (counts.len(), names.len());
        return Err(format!("callgrind wrote {got} counts for {wanted} cases").into());
    }
    let mut good = true;
    for (name, count) in names.iter().zip(counts) {
        let Some(budget) = budgets.remove(name) else {
            println!(
                "{name}: {count} instructions, NO BUDGET in {}",
                file.display()
            );
            good = false;
            continue;
        };
        let line = text.lines().position(|l| l.contains(name.as_str()));
        let at = format!("{}:{}", file.display(), line.map_or(0, |i| i + 1));
        if count > budget {
            println!(
                "{name}: {count} instructions, OVER its budget of {budget} ({at}); most of them:"
            );
            println!("{}", dearest(name)?);
            good = false;
        } else if (count as f64) < budget as f64 * ROOMY {
            println!("{name}: {count} instructions of {budget}: {at} can be lowered");
        } else {
            println!("{name}: {count} instructions of {budget}");
        }
    }
    for name in budgets.keys() {
        println!(
            "{name}: no such case; remove its budget from {}",
            file.display()
        );
        good = false;
    }
    Ok(good)
}

/// Counts one case, or all. Returns the path of callgrind's file, which has a part for each case.
fn callgrind(only: Option<&str>) -> Result<PathBuf, BoxError> {
    let out = std::env::temp_dir().join(format!("pushgate-budget-{}", std::process::id()));
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--combine-dumps=yes"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg("run")
        .args(only)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("valgrind: {e}; tests/setup.sh test installs it"))?;
    match done.success() {
        true => Ok(out),
        false => Err(format!("valgrind: {done}").into()),
    }
}

/// Returns the instructions of one run of each case, in order, and removes the file.
fn totals(file: &Path) -> Result<Vec<u64>, BoxError> {
    let text = std::fs::read_to_string(file)?;
    std::fs::remove_file(file)?;
    let mut counts = Vec::new();
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            counts.push(total.trim().parse::<u64>()? / RUNS);
        }
    }
    // Callgrind writes one more part at the program's end, with a count of 0.
    counts.retain(|n| *n > 0);
    Ok(counts)
}

/// Returns the functions in which a case spends most instructions.
fn dearest(name: &str) -> Result<String, BoxError> {
    let file = callgrind(Some(name))?;
    let told = Command::new("callgrind_annotate").arg(&file).output()?;
    std::fs::remove_file(&file)?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let functions = text.lines().filter(|l| l.contains('%') && l.contains(':'));
    Ok(functions.take(SHOWN).collect::<Vec<_>>().join("\n"))
}
