//! A page that says which dyno answered.

use std::{env, error::Error, net::Ipv6Addr};

use axum::{Router, extract::Path, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::var("PORT")?.parse()?;
    let app = Router::new().route("/", get(index)).route("/hello/{name}", get(hello));
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    println!("listening on port {port}");
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        terminated.recv().await;
        println!("stopping");
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}

async fn index() -> String {
    format!("Hello from {}\n", env::var("DYNO").unwrap_or_else(|_| "nowhere".to_owned()))
}

async fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}\n")
}
