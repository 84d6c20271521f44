//! One platform of a test's own: started from the built executable, ended with everything it runs.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{Answer, LONG, Output, processes, wait_until};

/// Variables of the test's own environment that builds on this machine may need: trust and mirrors, nothing else.
const PASSED_ON: &[&str] = &[
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "UV_INDEX_URL",
    "npm_config_registry",
];

/// A platform to be.
#[derive(Debug)]
pub struct Builder {
    executable: PathBuf,
    variables: BTreeMap<String, String>,
    user: Option<u32>,
}

impl Builder {
    /// Sets a variable of the platform's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a limit by its name in `domain::limits`.
    #[must_use]
    pub fn limit(self, name: &str, value: u64) -> Self {
        let name = format!("DOZEN_LIMIT_{}", name.to_ascii_uppercase());
        self.variable(&name, &value.to_string())
    }

    /// Runs the platform and everything of its tests as this ordinary user; as the tests' own if that is not root.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = rustix::process::geteuid().is_root().then_some(uid);
        self
    }

    /// Makes its directories; nothing runs yet.
    ///
    /// # Panics
    /// When it cannot.
    pub fn prepare(self) -> TestPlatform {
        let home = tempfile::Builder::new().prefix("dozen-test-").tempdir().expect("a scratch directory");
        let data_dir = home.path().join("data");
        let mut variables = BTreeMap::new();
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        variables.insert("PATH".to_owned(), format!("{}:{path}", bin.display()));
        variables.insert("HOME".to_owned(), home.path().display().to_string());
        variables.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        let passed = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        variables.extend(passed);
        for name in ["GIT_SSL_CAINFO", "RUSTUP_HOME", "CARGO_HOME"] {
            if let Ok(value) = std::env::var(name) {
                variables.insert(name.to_owned(), value);
            }
        }
        if let Ok(home) = std::env::var("HOME") {
            // Tools of the person who runs the tests; their settings stay out.
            variables.entry("RUSTUP_HOME".to_owned()).or_insert(format!("{home}/.rustup"));
        }
        variables.insert("DOZEN_DATA_DIR".to_owned(), data_dir.display().to_string());
        variables.insert("DOZEN_BUILD_ENV".to_owned(), PASSED_ON.join(","));
        for name in [
            "DOZEN_API_LISTEN",
            "DOZEN_TLS_LISTEN",
            "DOZEN_ROUTER_LISTEN",
            "DOZEN_ROUTER_TLS_LISTEN",
            "DOZEN_SSH_LISTEN",
        ] {
            variables.insert(name.to_owned(), "127.0.0.1:0".to_owned());
        }
        variables.extend(self.variables);
        let git = home.path().join(".gitconfig");
        fs::write(&git, "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n")
            .expect("a file");
        link_heroku(&bin);
        let mut executable = self.executable;
        if self.user.is_some() {
            // That user may not be let into the directory where it was built.
            let copy = bin.join("dozen");
            fs::copy(&executable, &copy).expect("a copy of the executable");
            executable = copy;
        }
        for path in [home.path(), &bin, &git] {
            own(self.user, path);
        }
        TestPlatform {
            executable,
            user: self.user,
            home,
            data_dir,
            variables: RefCell::new(variables),
            server: RefCell::new(None),
            output: Arc::default(),
            client: RefCell::default(),
            ended: Cell::new(false),
        }
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(self) -> TestPlatform {
        let platform = self.prepare();
        platform.start_server();
        platform
    }
}

/// Puts `heroku` on the platform's `PATH`: git calls it by that name for credentials.
fn link_heroku(bin: &Path) {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/cli/node_modules/heroku/bin/run.js");
    let script = format!("#!/bin/sh\nexec node '{}' \"$@\"\n", cli.display());
    let path = bin.join("heroku");
    fs::write(&path, script).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
}

/// Gives a file to the platform's user, if it has one of its own.
fn own(user: Option<u32>, path: &Path) {
    if user.is_some() {
        std::os::unix::fs::lchown(path, user, user).expect("a file of our own");
    }
}

/// A platform that a test has for itself.
#[derive(Debug)]
pub struct TestPlatform {
    executable: PathBuf,
    user: Option<u32>,
    home: tempfile::TempDir,
    data_dir: PathBuf,
    variables: RefCell<BTreeMap<String, String>>,
    server: RefCell<Option<Child>>,
    output: Arc<Mutex<String>>,
    client: RefCell<BTreeMap<String, String>>,
    ended: Cell<bool>,
}

impl TestPlatform {
    /// A platform from this executable, with what its tests want changed.
    pub fn builder(executable: &str) -> Builder {
        Builder { executable: PathBuf::from(executable), variables: BTreeMap::new(), user: None }
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A fresh folder in its home directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.home.path().join("work").join(name);
        fs::create_dir_all(&path).expect("a scratch folder");
        self.own(&self.home.path().join("work"));
        self.own(&path);
        path
    }

    /// Gives a file that the test has made to the platform's user.
    pub(crate) fn own(&self, path: &Path) {
        own(self.user, path);
    }

    /// What the platform has printed so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the server, at the same addresses as before if it ran already, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before that.
    pub fn start_server(&self) {
        let said = self.output().matches("is ready.").count();
        self.spawn_server();
        wait_until("the platform to be ready", LONG, || {
            let ended = self.server.borrow_mut().as_mut().and_then(|server| server.try_wait().ok().flatten());
            assert!(ended.is_none(), "the platform ended with {ended:?}:\n{}", self.output());
            self.output().matches("is ready.").count() > said
        });
        let listen = fs::read(self.data_dir.join("run/listen.json")).expect("the addresses");
        let listen: Value = serde_json::from_slice(&listen).expect("addresses");
        let mut variables = self.variables.borrow_mut();
        for (key, name) in [
            ("api", "DOZEN_API_LISTEN"),
            ("tls", "DOZEN_TLS_LISTEN"),
            ("router", "DOZEN_ROUTER_LISTEN"),
            ("router_tls", "DOZEN_ROUTER_TLS_LISTEN"),
            ("ssh", "DOZEN_SSH_LISTEN"),
        ] {
            variables.insert(name.to_owned(), listen[key].as_str().expect("an address").to_owned());
        }
        drop(variables);
        let exports = self.dozen(&["env"]).success().stdout;
        let value = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        *self.client.borrow_mut() = exports.lines().filter_map(value).collect();
    }

    fn spawn_server(&self) {
        let mut child = self
            .command(&self.executable)
            .arg("server")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the platform's executable");
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let output = self.output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                    output.push_str(&line);
                    output.push('\n');
                }
            });
        }
        *self.server.borrow_mut() = Some(child);
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&*self.variables.borrow()).current_dir(self.home.path()).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn finish(command: &mut Command) -> Output {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
        Output::new(line, &output)
    }

    /// Runs a command of the platform's own executable.
    pub fn dozen(&self, arguments: &[&str]) -> Output {
        Self::finish(self.command(&self.executable).args(arguments))
    }

    /// As [`TestPlatform::dozen`], in a folder.
    pub fn dozen_in(&self, folder: &Path, arguments: &[&str]) -> Output {
        Self::finish(self.command(&self.executable).args(arguments).current_dir(folder))
    }

    /// Runs the official CLI, pointed at this platform.
    pub fn heroku(&self, arguments: &[&str]) -> Output {
        self.heroku_in(self.home.path(), arguments)
    }

    /// Runs the official CLI in a folder.
    pub fn heroku_in(&self, folder: &Path, arguments: &[&str]) -> Output {
        Self::finish(self.client_command("heroku", folder).args(arguments))
    }

    /// Runs the official CLI as another account.
    pub fn heroku_as(&self, api_key: &str, arguments: &[&str]) -> Output {
        let mut command = self.client_command("heroku", self.home.path());
        Self::finish(command.env("HEROKU_API_KEY", api_key).args(arguments))
    }

    /// Runs the official CLI on a terminal, types an answer at each prompt, and returns everything that was shown.
    ///
    /// # Panics
    /// When a prompt does not come or the CLI fails.
    pub fn converse(
        &self,
        arguments: &[&str],
        without: &[&str],
        with: &[(&str, &str)],
        answers: &[(&str, &str)],
    ) -> String {
        let mut command = self.client_command("script", self.home.path());
        without.iter().for_each(|name| _ = command.env_remove(name));
        command.env_remove("CI").envs(with.iter().copied());
        // `script` is a part of Debian's essential packages.
        command.args(["-qec", &format!("heroku {}", arguments.join(" ")), "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (mut seen, mut from) = (String::new(), 0);
        for (prompt, answer) in answers {
            while !seen[from..].contains(prompt) {
                let mut bytes = [0; 4096];
                let n = output.read(&mut bytes).expect("the terminal");
                assert!(n > 0, "no {prompt:?} in {seen}");
                seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
            from = seen.len();
            input.write_all(format!("{answer}\r").as_bytes()).expect("the terminal");
        }
        output.read_to_string(&mut seen).expect("the terminal");
        drop(input);
        let status = child.wait().expect("a child of our own");
        assert!(status.success(), "{status}: {seen}");
        seen
    }

    /// Runs git in a folder, with what `dozen env` says.
    pub fn git(&self, folder: &Path, arguments: &[&str]) -> Output {
        Self::finish(self.client_command("git", folder).args(arguments))
    }

    /// A program with the environment of a person who has evaluated `dozen env`, to be changed and run by the test.
    pub fn client_command(&self, program: &str, folder: &Path) -> Command {
        // By full path: the executable is looked up in the test's own PATH otherwise.
        let path = self.home.path().join("bin").join(program);
        let mut command = self.command(if path.exists() { &path } else { Path::new(program) });
        command.envs(&*self.client.borrow()).current_dir(folder);
        command.env("GIT_TERMINAL_PROMPT", "0").env("NO_COLOR", "1").env("HEROKU_COLOR", "0").env("CI", "true");
        command
    }

    /// What a person's shell holds after `dozen env`.
    pub fn client_variable(&self, name: &str) -> Option<String> {
        self.client.borrow().get(name).cloned()
    }

    /// The address that a variable of the platform's configuration now holds.
    ///
    /// # Panics
    /// When the platform was never started.
    pub fn address(&self, variable: &str) -> String {
        self.variables.borrow().get(variable).expect("an address").clone()
    }

    /// Requests a path through the router.
    pub fn http(&self, host: &str, path: &str) -> Answer {
        self.exchange(&self.address("DOZEN_ROUTER_LISTEN"), host, &format!("GET {path} HTTP/1.1\r\n"), b"")
    }

    /// Asks for another protocol through the router; returns the answer's head and the connection if it was granted.
    ///
    /// # Panics
    /// When the router cannot be reached or ends the connection inside the head.
    pub fn upgrade(&self, host: &str, path: &str, headers: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.address("DOZEN_ROUTER_LISTEN")).expect("the router");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        (String::from_utf8_lossy(&answer).into_owned(), stream)
    }

    /// Calls the API with the first account's token.
    ///
    /// # Panics
    /// When it answers no JSON.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let token = self.client_variable("HEROKU_API_KEY").unwrap_or_default();
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
        head.push_str("Accept: application/vnd.heroku+json; version=3\r\n");
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        let answer = self.exchange(&self.address("DOZEN_API_LISTEN"), "localhost", &head, body.as_bytes());
        let value = serde_json::from_str(&answer.body);
        (answer.status, if answer.body.is_empty() { Value::Null } else { value.expect("JSON") })
    }

    fn exchange(&self, address: &str, host: &str, head: &str, body: &[u8]) -> Answer {
        let mut bytes = Vec::new();
        let done = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(LONG))?;
            stream.write_all(format!("{head}Host: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
            stream.write_all(body)?;
            stream.read_to_end(&mut bytes)
        });
        // What came before a broken connection is looked at all the same.
        _ = done;
        Answer::parse(&bytes)
    }

    /// The parent's process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> i32 {
        self.server.borrow().as_ref().expect("a running platform").id().cast_signed()
    }

    /// A role's process id, once there is one.
    ///
    /// # Panics
    /// When there is none for long.
    pub fn role(&self, role: &str) -> i32 {
        crate::wait_for(&format!("the {role} role"), LONG, || {
            let all = processes::with_arguments(&["role", role]);
            processes::children(self.pid()).into_iter().find(|pid| all.contains(pid))
        })
    }

    /// Kills a role (SIGKILL) and waits until the parent has started it again.
    pub fn kill_role(&self, role: &str) {
        let former = self.role(role);
        processes::kill(former, Signal::KILL);
        wait_until(&format!("another {role} role"), LONG, || !processes::is_alive(former) && self.role(role) != former);
    }

    /// Stops a role as a debugger would (SIGSTOP), or lets it go on.
    pub fn freeze_role(&self, role: &str, frozen: bool) {
        processes::kill(self.role(role), if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Asks the parent to start every role anew from the executable (SIGHUP).
    pub fn renew_roles(&self) {
        processes::kill(self.pid(), Signal::HUP);
    }

    /// Kills the parent (SIGKILL) and waits until its roles are gone.
    pub fn kill_parent(&self) {
        let roles = ["control", "router", "logs"].map(|role| self.role(role));
        processes::kill(self.pid(), Signal::KILL);
        if let Some(mut server) = self.server.borrow_mut().take() {
            _ = server.wait();
        }
        wait_until("the roles to end with their parent", LONG, || !roles.iter().any(|pid| processes::is_alive(*pid)));
    }

    /// Stops the parent (SIGTERM), leaving dynos alone, and waits for its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn stop_server(&self) {
        processes::kill(self.pid(), Signal::TERM);
        if let Some(mut server) = self.server.borrow_mut().take() {
            let status = server.wait().expect("a child of our own");
            assert!(status.success(), "the platform ended with {status}:\n{}", self.output());
        }
    }

    /// Process ids of the shims of all dynos of this platform.
    pub fn shims(&self) -> Vec<i32> {
        let dynos = fs::read_dir(self.data_dir.join("run/dynos")).into_iter().flatten().flatten();
        let all = dynos.flat_map(|dyno| processes::with_arguments(&["shim", &dyno.path().display().to_string()]));
        // The first process inside the container is the shim's child and carries its name.
        let all: Vec<i32> = all.collect();
        let inside: Vec<i32> = all.iter().flat_map(|pid| processes::children(*pid)).collect();
        all.into_iter().filter(|pid| !inside.contains(pid)).collect()
    }

    /// Has one process inside a dyno, with `argv` that continues with these words, asked to end (SIGTERM) as if by itself.
    ///
    /// # Panics
    /// When there is none.
    pub fn end_inside(&self, words: &[&str]) {
        processes::kill(*self.inside(words).first().expect("a process inside a dyno"), Signal::TERM);
    }

    /// Signals (SIGUSR1) every process inside a dyno with `argv` that continues with these words; gives their number.
    pub fn signal_inside(&self, words: &[&str]) -> usize {
        let all = self.inside(words);
        all.iter().for_each(|pid| processes::kill(*pid, Signal::USR1));
        all.len()
    }

    /// How many bytes each process inside a dyno with `argv` that continues with these words has written.
    pub fn written_inside(&self, words: &[&str]) -> Vec<u64> {
        self.inside(words).into_iter().map(processes::written).collect()
    }

    fn inside(&self, words: &[&str]) -> Vec<i32> {
        let shims = self.shims();
        let inside =
            |pid: &i32| std::iter::successors(Some(*pid), |pid| processes::parent(*pid)).any(|p| shims.contains(&p));
        processes::with_arguments(words).into_iter().filter(inside).collect()
    }

    /// All lines of an app's history, as many as the platform keeps.
    ///
    /// # Panics
    /// When the API refuses or the stream breaks.
    pub fn history(&self, app: &str) -> Vec<String> {
        crate::tail::history(self, app)
    }

    /// Says whether a process exists.
    pub fn is_alive(&self, pid: i32) -> bool {
        processes::is_alive(pid)
    }

    fn end(&self) {
        if self.ended.replace(true) {
            return;
        }
        let stopped = self.dozen(&["stop", "--with-dynos"]);
        if let Some(mut server) = self.server.borrow_mut().take() {
            if stopped.code != Some(0) {
                _ = server.kill();
            }
            _ = server.wait();
        }
        let was_ready = !self.client.borrow().is_empty();
        if was_ready && stopped.code != Some(0) && !std::thread::panicking() {
            panic!("{stopped}");
        }
    }
}

impl Drop for TestPlatform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let mut error = std::io::stderr().lock();
            // A test's last words; nothing can be done about a closed stream.
            _ = writeln!(error, "--- what the platform printed\n{output}---");
        }
        self.end();
    }
}
