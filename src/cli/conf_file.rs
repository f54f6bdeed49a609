//! Names the configuration file of a command: `FILE`, `-c FILE`, or the default.

use std::path::PathBuf;

use clap::Args;

/// The file that a command reads if none is named: where the package and `make install` put it.
pub const DEFAULT: &str = "/etc/pushgate/pushgate.yaml";

/// The configuration file of a command.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfFile {
    /// Configuration file, by default /etc/pushgate/pushgate.yaml.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The same, named by an option.
    #[arg(short = 'c', long, visible_alias = "conf", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfFile {
    /// Returns the file's path. If no file was named, tells on standard error which one is read.
    pub fn path(self) -> PathBuf {
        self.file.or(self.config).unwrap_or_else(|| {
            eprintln!("pushgate: no file is named; reading {DEFAULT}");
            DEFAULT.into()
        })
    }
}
