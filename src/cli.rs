//! The command line: which action to do, with which file.
//!
//! In: arguments. Out: an exit code. 0: done; 1: an error in the file or at run time, printed on standard
//! error; 2: a wrong command line. The short form `pushgate -c FILE [-t] [-d] [-u]` is Pingora's own.

mod checked;
mod conf_file;
mod edge;
mod examples;
mod generate;
mod keys;
mod quick;
mod version;

use checked::{CheckOptions, lines};
use conf_file::ConfFile;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, HostName, ServiceLog};
use crate::explain::{Question, explain};
use crate::import;
use crate::init::{self, Address, NodeAddress, Own};
use crate::observe::service_log;
use crate::simulate::{Settings, simulate};

/// Options of the process that are not in its configuration.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    #[command(flatten)]
    conf: ConfFile,
    /// Leave the terminal and run in the background.
    #[arg(short = 'd', long)]
    daemon: bool,
    /// Take the listening sockets over from the running process.
    #[arg(short = 'u', long)]
    upgrade: bool,
}

/// An edge proxy in front of streaming push servers.
#[derive(Parser, Debug)]
#[command(name = "pushgate", version, long_version = version::long(), about)]
#[command(after_help = examples::ALL)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    short: Option<Short>,
}

/// Pingora's form of the command line, without a subcommand.
#[derive(Args, Debug)]
struct Short {
    /// Configuration file, by default /etc/pushgate/pushgate.yaml.
    #[arg(short = 'c', long, visible_alias = "conf", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Leave the terminal and run in the background.
    #[arg(short = 'd', long)]
    daemon: bool,
    /// Take the listening sockets over from the running process.
    #[arg(short = 'u', long)]
    upgrade: bool,
    /// Check the file and exit, like `pushgate check`.
    #[arg(short = 't', long)]
    test: bool,
    /// Check the file, print it with every default, and exit, like `pushgate check --print`.
    #[arg(short = 'T')]
    print: bool,
}

#[derive(Subcommand, Debug, PartialEq)]
enum Command {
    /// Run the edge.
    #[command(after_help = examples::RUN)]
    Run(RunOptions),
    /// Check a configuration file: report every error with its line, bind nothing.
    #[command(after_help = examples::CHECK)]
    Check(CheckOptions),
    /// Run an edge without a file, and print the file that it stands for.
    #[command(after_help = examples::QUICK)]
    Quick(quick::Quick),
    /// Write a configuration that matches push servers already configured.
    Import {
        /// lightstreamer_conf.xml of each server.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Addresses that clients reach: the balanced one, then one for each server.
        #[arg(long = "vip", value_name = "ADDRESS")]
        vips: Vec<Address>,
        /// Addresses or host names of the servers whose files name no listening interface.
        #[arg(long = "node", value_name = "ADDRESS")]
        nodes: Vec<NodeAddress>,
        /// Domain of the servers whose files name only their machine (`<control_link_machine_name>`).
        #[arg(long, value_name = "NAME", value_parser = domain)]
        domain: Option<HostName>,
        /// Folder for `pushgate.yaml` and its password files; without it the configuration is printed.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Print the configuration of a deployment option, or list the options.
    #[command(after_help = examples::init())]
    Init {
        /// Option of the guide, such as `2.B.1.1`.
        option: Option<String>,
        /// Addresses that clients reach, in the order of the table at the head of the option's file.
        #[arg(long = "vip", value_name = "ADDRESS")]
        vips: Vec<Address>,
        /// Addresses or host names of the nodes, in the order of the table at the head of the option's file.
        #[arg(long = "node", value_name = "ADDRESS")]
        nodes: Vec<NodeAddress>,
        /// Domain in place of `mycompany.com`.
        #[arg(long, value_name = "NAME", value_parser = domain)]
        domain: Option<HostName>,
        /// PEM chains in the order of the file; each key is beside its chain and ends in `.key`.
        #[arg(long = "cert", value_name = "FILE")]
        certificates: Vec<PathBuf>,
    },
    /// Show what the edge would do with one flow, and which line of the file decides.
    #[command(after_help = examples::EXPLAIN)]
    Explain {
        #[command(flatten)]
        conf: ConfFile,
        #[command(flatten)]
        question: Box<Question>,
    },
    /// Simulate many clients while nodes fail by a script, with the decisions of this file.
    #[command(after_help = examples::SIMULATE)]
    Simulate {
        #[command(flatten)]
        conf: ConfFile,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Make and rotate the keys of cookies and of session tickets, which several edges share.
    Keys(keys::Keys),
    #[command(flatten)]
    Edge(edge::Action),
    /// Run two push nodes with the edge in front of them, to try it out.
    Demo {
        /// Port of the edge on 127.0.0.1; a free one by default.
        #[arg(long, value_name = "N")]
        port: Option<u16>,
    },
    /// Write the man pages, or the completions of bash, fish and zsh, into a folder.
    #[command(hide = true)]
    Generate {
        /// What to write.
        kind: generate::Kind,
        /// Folder of the files; created if missing.
        folder: PathBuf,
    },
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let command = command(Cli::parse()).unwrap_or_else(|e| e.exit());
    if matches!(command, Command::Run(_)) {
        crate::server::hold_signals();
    }
    match command {
        Command::Run(options) => {
            let conf = options.conf.path();
            match load(&conf) {
                Ok(config) => finish(run(config, &conf, options.daemon, options.upgrade)),
                Err(code) => code,
            }
        }
        Command::Check(options) => checked::check(options),
        Command::Quick(quick) => finish(quick.run()),
        Command::Import {
            files,
            vips,
            nodes,
            domain,
            out,
        } => {
            let own = Own {
                vips,
                nodes,
                certificates: Vec::new(),
                domain,
            };
            print_or_fail(imported(&files, &own, out.as_deref()))
        }
        Command::Init {
            option,
            vips,
            nodes,
            domain,
            certificates,
        } => {
            let own = Own {
                vips,
                nodes,
                certificates,
                domain,
            };
            print_or_fail(option.map_or(Ok(init::list()), |option| init::fill(&option, &own)))
        }
        Command::Explain { conf, question } => {
            let loaded = Config::load_placed(&conf.path());
            match loaded.map_err(refused) {
                Ok((config, places)) => print_or_fail(explain(&config, &places, &question)),
                Err(code) => code,
            }
        }
        Command::Simulate { conf, settings } => match load(&conf.path()) {
            Ok(config) => print_or_fail(simulated(&config, &settings)),
            Err(code) => code,
        },
        Command::Keys(keys) => print_or_fail(keys.run()),
        Command::Edge(action) => print_or_fail(edge::run(action)),
        Command::Demo { port } => finish(demo(port)),
        Command::Generate { kind, folder } => {
            print_or_fail(generate::generate(Cli::command(), kind, &folder))
        }
    }
}

/// Returns the one action of a command line, in either form.
fn command(cli: Cli) -> Result<Command, clap::Error> {
    match (cli.command, cli.short) {
        (Some(command), _) => Ok(command),
        (None, Some(short)) => Ok(short.command()),
        (None, None) => Err(Cli::command().error(
            ErrorKind::MissingSubcommand,
            "expected a subcommand or `-c FILE`; see `pushgate --help`",
        )),
    }
}

impl Short {
    fn command(self) -> Command {
        let conf = ConfFile {
            file: None,
            config: self.config,
        };
        match self.test || self.print {
            true => Command::Check(CheckOptions {
                conf,
                print: self.print,
                ..CheckOptions::default()
            }),
            false => Command::Run(RunOptions {
                conf,
                daemon: self.daemon,
                upgrade: self.upgrade,
            }),
        }
    }
}

fn load(conf: &Path) -> Result<Config, ExitCode> {
    Config::load(conf).map_err(refused)
}

fn refused(faults: ConfigErrors) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::FAILURE
}

fn domain(text: &str) -> Result<HostName, String> {
    let expected = "expected a domain, such as `mycompany.com`";
    text.parse().map_err(|()| expected.to_owned())
}

fn imported(files: &[PathBuf], own: &Own, out: Option<&Path>) -> Result<String, String> {
    let written = import::write(&import::read_all(files).map_err(lines)?, own)?;
    match out {
        None => Ok(written.yaml),
        Some(folder) => written.save(folder),
    }
}

fn simulated(config: &Config, settings: &Settings) -> Result<String, String> {
    let report = simulate(config, settings)?;
    match settings.json {
        true => serde_json::to_string(&report).map_err(|e| e.to_string()),
        false => Ok(report.to_string()),
    }
}

fn print_or_fail<E: std::fmt::Display>(text: Result<String, E>) -> ExitCode {
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("pushgate: {e}");
            ExitCode::FAILURE
        }
    }
}

fn finish(done: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    service_log::flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pushgate: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    config: Config,
    conf: &Path,
    daemon: bool,
    upgrade: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    service_log::init("info", config.log.service.clone());
    if !daemon {
        service_log::start()?;
    }
    let options = crate::server::Options {
        // An absolute path, because a daemon runs in `/` and a reload reads the file again.
        path: Some(std::path::absolute(conf)?),
        daemon,
        upgrade,
    };
    crate::server::run(config, options)
}

/// Runs the demo's nodes beside an edge, whose configuration is like any other.
fn demo(port: Option<u16>) -> Result<(), Box<dyn std::error::Error>> {
    // Only errors are logged, so that the banner stays readable.
    service_log::init("error", ServiceLog::Text);
    service_log::start()?;
    let demo = crate::demo::Demo::start(port.unwrap_or(0))?;
    let config = Config::parse(&demo.configuration, "demo", Path::new("."))?;
    demo.announce();
    let options = crate::server::Options {
        path: None,
        daemon: false,
        upgrade: false,
    };
    crate::server::run(config, options)
}

#[cfg(test)]
mod tests;
