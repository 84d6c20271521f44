//! Commands and their options, as people type them. Topics are plural nouns, commands verbs, as in the official CLI.

use clap::{Args, Parser, Subcommand};
use dozen_domain::usage::Month;

/// A twelve-factor application platform in one executable.
#[derive(Debug, Parser)]
#[command(
    name = "dozen",
    version,
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = crate::manual::exit_codes()
)]
pub struct Arguments {
    /// Print JSON in place of tables and lines
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything that `dozen` does for a person.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the platform on this machine, in the foreground
    Server,
    /// End the platform that runs on the data directory; dynos go on
    Stop {
        /// Stop every dyno too and remove what they used
        #[arg(long)]
        with_dynos: bool,
    },
    /// Print `export` lines that point the official heroku CLI and git at this platform
    Env,
    /// Run the official heroku CLI pointed at this platform
    Heroku {
        /// What to hand to it, after `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Log in to a platform elsewhere; asks for an API key, or with --email for a password
    Login(Login),
    /// Forget the login to a platform elsewhere and end its forwarder
    Logout,
    /// Let the official heroku CLI drive the platform that was logged in to, through a port of this machine
    Connect {
        /// Which port; otherwise the one of the last time, or any
        #[arg(long, short)]
        port: Option<u16>,
    },
    /// Print the fingerprint of this platform's certificate authority, for `dozen login` on other machines
    Fingerprint,
    /// Print a completion script: eval "$(dozen completion bash)"
    Completion {
        /// For which shell
        shell: crate::completion::Shell,
    },
    /// Print the manual page: dozen man | man -l -
    Man,
    /// Look at this machine: protections, kernel, disk, clock, ports; fails when the platform cannot run here
    Doctor,
    /// Print the version
    Version,
    /// Make a further account and print its API key
    #[command(name = "accounts:create")]
    AccountsCreate {
        /// Its e-mail address
        email: String,
    },
    /// Check the hash chain of every app's releases
    #[command(name = "ledger:verify")]
    LedgerVerify,
    /// Print the configuration reference page
    #[command(hide = true)]
    Reference,
    /// Answer git's question for credentials
    #[command(name = "git-credential", hide = true)]
    GitCredential {
        /// `get`, `store` or `erase`
        operation: String,
    },
    /// One that speaks the Platform API.
    #[command(flatten)]
    Client(Client),
}

/// Commands that speak the Platform API.
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Show who is logged in, and where
    Whoami,
    /// List your apps
    Apps,
    /// Make an app; in a git repository, also the remote `heroku`
    #[command(name = "apps:create", visible_alias = "create")]
    AppsCreate {
        /// Its name; one is made up if none is given
        name: Option<String>,
        /// Name of the git remote to add
        #[arg(long, short, default_value = "heroku")]
        remote: String,
        /// Add no git remote
        #[arg(long)]
        no_remote: bool,
    },
    /// Show an app
    #[command(name = "apps:info", visible_alias = "info")]
    AppsInfo(App),
    /// Destroy an app for good
    #[command(name = "apps:destroy")]
    AppsDestroy {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// The app's name again
        #[arg(long)]
        confirm: String,
    },
    /// Show an app's config vars
    Config(App),
    /// Set config vars: a new release, and dynos restart
    #[command(name = "config:set")]
    ConfigSet {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// `KEY=value`
        #[arg(required = true)]
        pairs: Vec<String>,
    },
    /// Print one config var
    #[command(name = "config:get")]
    ConfigGet {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// Its name
        key: String,
    },
    /// Unset config vars: a new release, and dynos restart
    #[command(name = "config:unset")]
    ConfigUnset {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// Their names
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Show an app's log
    Logs {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// Go on with new lines
        #[arg(long, short)]
        tail: bool,
        /// Lines of history
        #[arg(long, short, default_value_t = 100)]
        num: u64,
        /// Only this dyno or process type
        #[arg(long, short)]
        dyno: Option<String>,
        /// Only this source: app or heroku
        #[arg(long, short)]
        source: Option<String>,
    },
    /// Show an app's dynos
    Ps(App),
    /// Set how many dynos of which size run: web=2 worker=1:standard-2x
    #[command(name = "ps:scale")]
    PsScale {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// `TYPE=quantity[:size]`; `TYPE+1` and `TYPE-1` are relative
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// Restart an app's dynos, all of them unless some are named
    #[command(name = "ps:restart")]
    PsRestart {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// A dyno, web.1, or a process type, web
        which: Option<String>,
    },
    /// Stop a dyno or the dynos of a process type; those of the formation start again
    #[command(name = "ps:stop")]
    PsStop {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// A dyno, run.4711, or a process type, web
        which: String,
    },
    /// Show an app's releases
    Releases(App),
    /// Go back to an earlier release, by a new one
    Rollback {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// Its number, v12; the one before the present one if none is given
        release: Option<String>,
    },
    /// Print where an app answers, and open it in a browser if there is one
    Open {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// A path below it
        path: Option<String>,
    },
    /// Timed jobs.
    #[command(flatten)]
    Schedule(crate::commands::schedule::Schedule),
    /// Show for how many seconds dynos ran, by app, process type and size
    Usage {
        /// Only this app; otherwise all of yours
        #[arg(long, short)]
        app: Option<String>,
        /// Which month of UTC, 2026-11; otherwise the present one
        #[arg(long)]
        month: Option<Month>,
        /// Print comma-separated values with a head line
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Run a command in a one-off dyno, here; its exit status is ours
    Run {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// How.
        #[command(flatten)]
        one_off: OneOff,
        /// Give it pipes though this is a terminal
        #[arg(long)]
        no_tty: bool,
    },
    /// Run a command in a one-off dyno, its output to the app's log; prints the dyno's name
    #[command(name = "run:detached")]
    RunDetached {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// How.
        #[command(flatten)]
        one_off: OneOff,
    },
    /// Reach ports of a running dyno, those on its loopback too, at ports of this machine
    Forward {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// Of which dyno
        #[arg(long, short, default_value = "web.1")]
        dyno: String,
        /// PORT, or HERE:THERE where the ports differ
        #[arg(required = true)]
        ports: Vec<String>,
    },
    /// Run a command, or a shell, inside a running dyno; its exit status is ours
    Exec {
        /// Which app.
        #[command(flatten)]
        app: App,
        /// In which dyno
        #[arg(long, short, default_value = "web.1")]
        dyno: String,
        /// Give it pipes though this is a terminal
        #[arg(long)]
        no_tty: bool,
        /// One word: a command line. Several: a command and its arguments. None: a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// What a one-off dyno is.
#[derive(Debug, Args)]
pub struct OneOff {
    /// Its size: basic, standard-1x, standard-2x, ...
    #[arg(long, short)]
    pub size: Option<String>,
    /// The first part of its name, `run` unless given
    #[arg(long = "type")]
    pub process_type: Option<String>,
    /// Variables over the app's, `KEY=value`
    #[arg(long, short)]
    pub env: Vec<String>,
    /// One word: a command line. Several: a command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Which platform to log in to, and how.
#[derive(Debug, Args)]
pub struct Login {
    /// `https://HOST[:PORT]`, the platform's TLS address; its port is 5443 unless given. In a script standard input is the
    /// key or the password, and --fingerprint is needed the first time
    pub url: String,
    /// Fingerprint of its certificate authority, as `dozen fingerprint` prints it there
    #[arg(long)]
    pub fingerprint: Option<String>,
    /// E-mail address: its password is asked for then, and a token is made that `dozen logout` revokes
    #[arg(long)]
    pub email: Option<String>,
}

/// Which app.
#[derive(Debug, Args)]
pub struct App {
    /// App; otherwise that of the git remote `heroku`
    #[arg(long = "app", short = 'a')]
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn json_is_asked_for_anywhere_but_in_a_command_to_run() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words).expect("parsed");
        assert!(parse(&["dozen", "--json", "apps"]).json && parse(&["dozen", "apps", "--json"]).json);
        let run = parse(&["dozen", "run", "-a", "shop", "report", "--json"]);
        let Command::Client(Client::Run { one_off, .. }) = run.command else { panic!("not parsed") };
        assert_eq!((run.json, one_off.command), (false, vec!["report".to_owned(), "--json".to_owned()]));
        assert!(Arguments::try_parse_from(["dozen", "usage", "--csv", "--json"]).is_err());
    }

    #[test]
    fn the_app_may_come_after_what_is_scaled() {
        let scale =
            Arguments::try_parse_from(["dozen", "ps:scale", "web=2", "worker-1", "-a", "shop"]).expect("parsed");
        let Command::Client(Client::PsScale { app, changes }) = scale.command else { panic!("not parsed") };
        assert_eq!((app.name.as_deref(), changes), (Some("shop"), vec!["web=2".to_owned(), "worker-1".to_owned()]));
    }

    #[test]
    fn a_timed_jobs_name_is_not_its_apps() {
        let words = ["dozen", "schedule:add", "rake tidy", "-a", "shop", "--name", "tidy", "--schedule", "@daily"];
        let shown = format!("{:?}", Arguments::try_parse_from(words).expect("parsed"));
        assert!(shown.contains("name: Some(\"shop\")") && shown.contains("name: Some(\"tidy\")"), "{shown}");
    }

    #[test]
    fn the_heroku_command_takes_everything_after_the_dashes() {
        let arguments = Arguments::try_parse_from(["dozen", "heroku", "--", "ps:scale", "web=2", "-a", "x"]);
        let Ok(Arguments { command: Command::Heroku { arguments }, .. }) = arguments else { panic!("not parsed") };
        assert_eq!(arguments, ["ps:scale", "web=2", "-a", "x"]);
    }
}
