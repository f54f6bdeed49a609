//! Reads the block `admin` of a file alone, for commands that ask the running edge.
//!
//! In: a path. Out: the block, although other blocks have faults: an operator who has half edited the file
//! must still be able to drain a node.

use std::path::Path;

use super::decode::decode;
use super::error::{ConfigError, ConfigErrors};
use super::sources::Sources;
use super::tree::{self, Kind};
use super::{Admin, read};

impl Admin {
    /// Reads the block of the file at `path`; the path of its token file is then absolute. `None`: the file
    /// has no such block.
    ///
    /// Errors: the file cannot be read or is not YAML; a fault in the block.
    pub fn of_file(path: &Path) -> Result<Option<Admin>, ConfigErrors> {
        let text = read::read(path).map_err(|fault| ConfigErrors::one(*fault))?;
        let file = path.display().to_string();
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut sources = Sources::gather(&text, &file, dir, &|name| std::env::var_os(name));
        let faults = std::mem::take(&mut sources.errors).into_iter();
        let faults: Vec<_> = faults.map(|f| sources.fault(f)).collect();
        // If another file is broken, the first one alone.
        let tree = sources.tree.take().or_else(|| tree::parse(&text).0);
        let of_block = |f: &&ConfigError| f.path == "admin" || f.path.starts_with("admin.");
        let Some(mut tree) = tree else {
            return ConfigErrors::of(faults, &sources.files).map_or(Ok(None), Err);
        };
        let of_admin = faults.iter().filter(of_block).cloned().collect();
        if let Some(faults) = ConfigErrors::of(of_admin, &sources.files) {
            return Err(faults);
        }
        if let Kind::Map(entries) = &mut tree.kind {
            entries.retain(|entry| entry.key == "admin");
        }
        let decoded = decode(&mut tree, Vec::new());
        let faults = decoded.errors.into_iter().map(|e| sources.tell(e));
        if let Some(faults) = ConfigErrors::of(faults.collect(), &sources.files) {
            return Err(faults);
        }
        let admin = decoded.config.and_then(|config| config.admin);
        Ok(admin.map(|admin| Admin {
            token_file: admin.token_file.map(|file| dir.join(file)),
            ..admin
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Option<Admin>, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("f.yaml");
        std::fs::write(&file, text).expect("a file");
        let place = format!("{}/", dir.path().display());
        let admin = Admin::of_file(&file).map_err(|e| e.to_string().replace(&place, ""));
        admin.map(|admin| {
            admin.map(|mut admin| {
                let token = admin.token_file.take();
                admin.token_file = token.map(|t| t.strip_prefix(dir.path()).expect("in it").into());
                admin
            })
        })
    }

    /// Aim: the block is read although others are wrong, and its own faults have their places. Fails if the
    /// whole file is checked, or if the token is looked for elsewhere than beside the file.
    #[test]
    fn the_block_is_read_alone() {
        assert_eq!(said("listeners: 5\n"), Ok(None));
        let admin = said("nodes: { a: b }\nadmin: { bind: 127.0.0.1:1, token_file: t }\n");
        let admin = admin.expect("sound").expect("a block");
        assert_eq!(admin.bind.to_string(), "127.0.0.1:1");
        assert_eq!(admin.token_file, Some("t".into()));
        let wrong = said("admin: { bind: here }\n").expect_err("no address");
        assert!(
            wrong.starts_with("f.yaml:1:16: admin.bind: found `here`"),
            "{wrong}"
        );
        let twice = said("admin: { bind: 127.0.0.1:1 }\nadmin: { bind: 127.0.0.1:2 }\n");
        assert!(twice.is_err(), "{twice:?}");
        let broken = said("admin: [\n").expect_err("no YAML");
        assert!(broken.starts_with("f.yaml:2:1: "), "{broken}");
    }
}
