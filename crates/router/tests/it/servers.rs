//! Eight real web servers, each writing down which requests it sees. `./test --install-only` installs them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::soon;

/// A server and what it has seen.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    directory: TempDir,
    /// Of a server inside this process.
    own: Arc<Mutex<Vec<String>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The workers of some are children of their own, and end with their master.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// Methods and paths of all requests so far, in whatever order.
    pub(crate) fn seen(&self) -> Vec<String> {
        let text = fs::read(self.directory.path().join("seen")).unwrap_or_default();
        let mut seen: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        seen.extend(self.own.lock().expect("no panic").iter().cloned());
        seen
    }

    /// What it has to say of errors.
    pub(crate) fn said(&self) -> String {
        let read = |file: &str| fs::read_to_string(self.directory.path().join(file)).unwrap_or_default();
        ["output", "errors"].map(read).concat()
    }

    fn start(name: &'static str, number: u16, command: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let directory = TempDir::new().expect("a directory");
        // A loopback address of this process's own, so that no other test can have the port.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let address = SocketAddr::from(([127, a | 0x80, b, c], 9_000 + number));
        let log = fs::File::create(directory.path().join("output")).expect("a file");
        let child = command(directory.path(), address)
            .env("SEEN", directory.path().join("seen"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({error}): run ./test --install-only"));
        Self { name, address, child: Some(child), directory, own: Arc::default() }
    }

    async fn listening(&mut self) {
        let name = self.name;
        let up = async {
            while TcpStream::connect(self.address).await.is_err() {
                if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                    panic!("{} has ended with {status}: {}", self.name, self.said());
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        soon(name, up).await;
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

/// A program of Debian's, or one that was unpacked beside the build.
fn find(name: &str) -> (PathBuf, PathBuf) {
    let roots = [PathBuf::from("/"), target().join("http-servers")];
    let found = roots.into_iter().map(|root| (root.join("usr/sbin").join(name), root)).find(|(path, _)| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}: run ./test --install-only"))
}

/// Where the libraries of unpacked programs are.
fn libraries() -> String {
    let below = fs::read_dir(target().join("http-servers/usr/lib")).into_iter().flatten().flatten();
    below.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>().join(":")
}

fn python(module: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(target().join("http-venv/bin/python"));
    command.env("PYTHONPATH", apps()).env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", module]).args(arguments);
    command
}

fn nginx(directory: &Path, address: SocketAddr) -> Command {
    let (program, _) = find("nginx");
    let place = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/errors info;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ {temporary} log_format seen '$request_method $request_uri'; access_log {place}/seen seen;\n\
         server {{ listen {address}; location / {{ return 200 ok; }} }} }}\n"
    );
    fs::write(directory.join("nginx.conf"), configuration).expect("a file");
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries()).arg("-e").arg(directory.join("errors"));
    command.arg("-c").arg(directory.join("nginx.conf"));
    command
}

fn apache(directory: &Path, address: SocketAddr) -> Command {
    let (program, root) = find("apache2");
    let (place, modules) = (directory.display(), root.join("usr/lib/apache2/modules"));
    let modules = modules.display();
    let configuration = format!(
        "ServerRoot {place}\nServerName localhost\nListen {address}\nPidFile {place}/pid\nErrorLog {place}/errors\n\
         DefaultRuntimeDir {place}\nUser #65534\nGroup #65534\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
         LoadModule authz_core_module {modules}/mod_authz_core.so\n\
         StartServers 1\nServerLimit 1\nThreadsPerChild 64\nMaxRequestWorkers 64\n\
         DocumentRoot {place}\nLogFormat \"%m %U\" seen\nCustomLog {place}/seen seen\n"
    );
    fs::write(directory.join("httpd.conf"), configuration).expect("a file");
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries()).args(["-D", "FOREGROUND", "-f"]).arg(directory.join("httpd.conf"));
    command
}

/// hyper, in this process.
async fn hyper() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let own: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = own.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let noted = noted.clone();
            tokio::spawn(async move {
                let answer = service_fn(move |request: hyper::Request<Incoming>| {
                    noted.lock().expect("no panic").push(format!("{} {}", request.method(), request.uri()));
                    async move {
                        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                        Ok::<_, std::convert::Infallible>(Response::new("ok".to_owned()))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Server { name: "hyper", address, child: None, directory: TempDir::new().expect("a directory"), own }
}

/// All of them, listening.
pub(crate) async fn all() -> Vec<Server> {
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut servers = vec![
        Server::start("nginx", 0, nginx),
        Server::start("apache2", 1, apache),
        Server::start("gunicorn", 2, |_, address| {
            python("gunicorn", &words(format!("-b {address} -k gthread --threads 16 --keep-alive 60 seen:wsgi")))
        }),
        Server::start("uvicorn", 3, |_, address| {
            let words = words(format!("--host {} --port {} --http httptools seen:asgi", address.ip(), address.port()));
            python("uvicorn", &words)
        }),
        Server::start("hypercorn", 4, |_, address| python("hypercorn", &words(format!("-b {address} seen:asgi")))),
        Server::start("waitress", 5, |_, address| {
            python("waitress", &words(format!("--listen={address} --threads=16 seen:wsgi")))
        }),
        Server::start("node", 6, |_, address| {
            let installed = target().join("node/node_modules/node/bin/node");
            let mut command = Command::new(if installed.exists() { installed } else { PathBuf::from("node") });
            command.arg(apps().join("seen.js")).arg(address.ip().to_string()).arg(address.port().to_string());
            command
        }),
    ];
    for server in &mut servers {
        server.listening().await;
    }
    servers.push(hyper().await);
    servers
}
