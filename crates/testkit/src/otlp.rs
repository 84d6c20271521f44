//! An OpenTelemetry consumer on the official protobuf definitions (`otlp_receiver.py`), in a process of its own.
//! `./test --install-only` makes its Python environment.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;

use crate::LONG;

/// A consumer. It ends with the test.
#[derive(Debug)]
pub struct Consumer {
    child: Child,
    said: mpsc::Receiver<Value>,
    /// Where it takes gRPC.
    pub grpc: u64,
    /// Where it takes HTTP, below `/base/`.
    pub http: u64,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Consumer {
    /// Starts one. HTTP requests with these numbers (from 1) are answered with 503.
    ///
    /// # Panics
    /// When its environment is missing or it does not start.
    pub fn start(failing: &[&str]) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = here.join("../../target/otlp-venv/bin/python");
        assert!(python.exists(), "there is no {}: run ./test --install-only", python.display());
        let mut child = Command::new(python)
            .arg(here.join("src/otlp_receiver.py"))
            .args(failing)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                say.send(serde_json::from_str(&line).expect("JSON")).ok();
            }
        });
        let ports: Value = said.recv_timeout(LONG).expect("its ports");
        let port = |name: &str| ports[name].as_u64().expect("a port");
        Self { grpc: port("grpc"), http: port("http"), child, said }
    }

    /// The next request: `kind` (the message's name), `how` it came, `headers` and the `message`.
    ///
    /// # Panics
    /// When none comes.
    pub fn request(&self) -> Value {
        self.said.recv_timeout(LONG).expect("a request")
    }

    /// Requests until one of each kind has come, by kind; the last of each.
    ///
    /// # Panics
    /// When they do not come.
    pub fn requests(&self) -> BTreeMap<String, Value> {
        let mut requests = BTreeMap::new();
        while requests.len() < 3 {
            let request = self.request();
            requests.insert(request["kind"].as_str().expect("a name").to_owned(), request);
        }
        requests
    }
}

/// Attributes of a resource, record, point or span whose values are strings.
pub fn attributes(of: &Value) -> BTreeMap<&str, &str> {
    let pairs = of["attributes"].as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair["key"].as_str()?, pair["value"]["stringValue"].as_str()?))).collect()
}
