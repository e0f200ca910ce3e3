//! Serves the door over the in-memory reference database: `cargo run -p cql --example reference [PORT]`.

use api::reference::Reference;
use std::net::{IpAddr, Ipv4Addr};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .unwrap_or(9042);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("{}", listener.local_addr()?);
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    cql::serve(
        listener,
        database,
        cql::Options::default(),
        std::future::pending(),
    )
    .await
}
