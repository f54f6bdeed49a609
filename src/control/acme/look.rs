//! Looks at the state folders: files that changed, open challenges.
//!
//! In: a folder, its files as they were at the last look. Out: what is there now. A folder that hangs holds up its own
//! certificates only, and one look waits for it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::acme::{Folder, Proof};
use crate::clock;
use crate::control::file_thread::on_file_thread;
use crate::credentials::{Issued, Mark};
use crate::observe::seldom::Seldom;

/// How long the other folders wait for one that does not answer. A network file system answers within this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looks fail twice a second, and always for the same reason.
static TOLD: Seldom = Seldom::new();

/// A file of a certificate, and how it was at the last look.
pub struct Before {
    /// The certificate.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its state at the last look.
    pub mark: Option<Mark>,
}

/// A file of a certificate that has changed.
pub struct Changed {
    /// The file as it was asked for.
    pub before: Before,
    /// Its state now.
    pub mark: Mark,
    /// Its certificate; `None`: it has none.
    pub issued: Option<Issued>,
}

struct Seen {
    changed: Vec<Changed>,
    open: Vec<Proof>,
}

/// The looks at one folder.
#[derive(Default)]
pub struct Looks {
    /// The look that has not ended in time.
    late: Option<JoinHandle<Result<Seen, String>>>,
    /// Whether the last look ended well.
    pub answers: bool,
    /// Open challenges at the last look that ended.
    pub open: Vec<Proof>,
}

impl Looks {
    /// Looks at `folder`, whose certificates have the files `all`. Returns the changes.
    pub async fn look(&mut self, folder: &Folder, all: Vec<Before>) -> Vec<Changed> {
        let path = folder.path().display().to_string();
        let mut running = match self.late.take() {
            Some(late) if !late.is_finished() => {
                self.late = Some(late);
                return Vec::new();
            }
            Some(late) => late,
            None => {
                let folder = folder.clone();
                tokio::spawn(on_file_thread(move || seen(&folder, all)))
            }
        };
        self.answers = false;
        let Ok(ended) = tokio::time::timeout(PATIENCE, &mut running).await else {
            log::error!("ACME: the state folder {path} does not answer; its orders wait");
            self.late = Some(running);
            return Vec::new();
        };
        match ended.map_err(|e| e.to_string()).and_then(|seen| seen) {
            Ok(seen) => {
                self.answers = true;
                self.open = seen.open;
                seen.changed
            }
            Err(why) => {
                if TOLD.is_due() {
                    log::error!("ACME: cannot look at the state folder {path}: {why}");
                }
                Vec::new()
            }
        }
    }
}

fn seen(folder: &Folder, all: Vec<Before>) -> Seen {
    let mut changed = Vec::new();
    for before in all {
        let mark = Mark::of(&before.file);
        // A file that cannot be read now is read again by the next look.
        if before.mark != Some(mark)
            && let Ok(issued) = Issued::read(&before.file)
        {
            changed.push(Changed {
                before,
                mark,
                issued,
            });
        }
    }
    let open = folder.challenges(clock::wall());
    Seen { changed, open }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a folder whose file system hangs stops its own orders only, and one thread waits for it, however often the
    /// edge looks. Fails if a look waits without end, or begins again and again.
    #[tokio::test(start_paused = true)]
    async fn a_folder_that_hangs_waits_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("push.pem");
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.expect("mkfifo").success());
        let all = || {
            let (name, file, mark) = ("push".to_owned(), file.clone(), None);
            vec![Before { name, file, mark }]
        };
        let folder = Folder::at(dir.path().to_owned());
        let mut looks = Looks::default();
        let begun = tokio::time::Instant::now();
        for _ in 0..100 {
            assert!(looks.look(&folder, all()).await.is_empty());
            assert!(!looks.answers && looks.late.is_some());
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "the first one alone waits");
        // A second thread would wait for another writer.
        drop(std::fs::File::create(&file).expect("its reader"));
        let mut changed = Vec::new();
        while !looks.answers {
            tokio::task::yield_now().await;
            changed = looks.look(&folder, all()).await;
        }
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].issued, None, "it is empty");
    }
}
