//! The result of an import: a configuration, and the passwords for which it names files.
//!
//! In: both. Out: files in a folder; an existing file is never overwritten.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::certificates::Secret;

/// The files that the edge needs.
#[derive(Clone, Debug)]
pub struct ImportOutput {
    /// The edge's configuration.
    pub yaml: String,
    /// Passwords for which the configuration names files.
    pub secrets: Vec<Secret>,
}

impl ImportOutput {
    /// Writes `pushgate.yaml` and the passwords into `folder`, readable only by their owner. Returns the
    /// files' names.
    ///
    /// Errors: the folder cannot be made, or a file already exists: no file is overwritten.
    pub fn save(&self, folder: &Path) -> Result<String, String> {
        let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
        let secrets = self.secrets.iter();
        let secrets = secrets.map(|s| (s.file.as_str(), format!("{}\n", s.password)));
        let mut told = String::new();
        for (file, text) in secrets.chain([("pushgate.yaml", self.yaml.clone())]) {
            let path = folder.join(file);
            let mut options = OpenOptions::new();
            let made = options.write(true).create_new(true).mode(0o600).open(&path);
            let written = made.and_then(|mut f| f.write_all(text.as_bytes()));
            written.map_err(|e| failed(&path, e))?;
            told += &format!("{}\n", path.display());
        }
        Ok(told)
    }
}
