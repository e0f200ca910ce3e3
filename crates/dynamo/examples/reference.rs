//! Serves the door over the in-memory reference database: `cargo run -p dynamo --example reference [PORT]`.

use api::reference::Reference;
use std::net::{IpAddr, Ipv4Addr};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .unwrap_or(8000);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("{}", listener.local_addr()?);
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9042);
    dynamo::serve(
        listener,
        database,
        dynamo::Options::default(),
        std::future::pending(),
    )
    .await
}
