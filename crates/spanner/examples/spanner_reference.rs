//! Serves the Spanner door over the in-memory reference: `cargo run -p spanner --example spanner_reference -- 9010`.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listener = tokio::net::TcpListener::bind((address, port.unwrap_or(9010))).await?;
    println!("Spanner over the reference: {}", listener.local_addr()?);
    let database = api::reference::Reference::new(address, 9042);
    spanner::serve(listener, database, Default::default(), pending()).await
}
