//! Two networks, or one and a bare socket, over loopback.

use bytes::Bytes;
use model::{ClusterId, Incarnation, NodeId};
use os::TcpNetwork;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::{Identity, Incoming, Network};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SOON: Duration = Duration::from_secs(10);

fn identity(node: u64, incarnation: u64, network: &TcpNetwork) -> Identity {
    Identity {
        cluster: ClusterId([1; 16]),
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        version_min: 1,
        version_max: 1,
        advertised: network.local_address().to_string(),
    }
}

async fn unidentified() -> Arc<TcpNetwork> {
    TcpNetwork::bind(LOOPBACK, None).await.unwrap()
}

async fn node(id: u64) -> Arc<TcpNetwork> {
    let network = unidentified().await;
    network.identify(identity(id, 1, &network));
    network
}

async fn next(network: &TcpNetwork) -> Incoming {
    tokio::time::timeout(SOON, network.receive())
        .await
        .expect("a message within ten seconds")
        .expect("the network is up")
}

/// Sends until something arrives: single messages may be lost.
async fn talks(from: &TcpNetwork, to: &TcpNetwork) -> Incoming {
    for _ in 0..200 {
        from.send(to.local_address(), Bytes::from_static(b"hello"));
        let waited = tokio::time::timeout(Duration::from_millis(50), to.receive()).await;
        if let Ok(incoming) = waited {
            return incoming.expect("the network is up");
        }
    }
    panic!("nothing arrives");
}

/// Waits until a hello was refused, while messages are being sent.
async fn is_refused(from: &TcpNetwork, to: &TcpNetwork) {
    let deadline = Instant::now() + SOON;
    while from.statistics().rejections == 0 && to.statistics().rejections == 0 {
        assert!(Instant::now() < deadline, "nobody refuses");
        from.send(to.local_address(), Bytes::from_static(b"hello"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(to.statistics().received_messages, 0);
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_sender() {
    let (one, two) = (node(1).await, node(2).await);
    for count in 0..1_000u32 {
        one.send(
            two.local_address(),
            Bytes::from(count.to_be_bytes().to_vec()),
        );
    }
    for count in 0..1_000u32 {
        let incoming = next(&two).await;
        assert_eq!(incoming.message, count.to_be_bytes()[..]);
        assert_eq!(incoming.from.node, NodeId(1));
        assert_eq!(incoming.address, one.local_address());
    }
    let large = Bytes::from(vec![9; 32 << 20]);
    two.send(one.local_address(), large.clone());
    assert_eq!(next(&one).await.message, large);
}

#[tokio::test]
async fn a_message_waits_for_the_identity_of_both() {
    let (one, two) = (unidentified().await, unidentified().await);
    one.send(two.local_address(), Bytes::from_static(b"early"));
    one.identify(Identity {
        cluster: ClusterId::default(),
        ..identity(0, 0, &one)
    });
    two.identify(identity(2, 1, &two));
    let incoming = next(&two).await;
    assert_eq!(incoming.from.node, NodeId(0));
    // It joins: from now on it is somebody else.
    one.identify(identity(7, 1, &one));
    while talks(&one, &two).await.from.node != NodeId(7) {}
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (one, two) = (node(1).await, unidentified().await);
    two.identify(Identity {
        cluster: ClusterId([2; 16]),
        ..identity(2, 1, &two)
    });
    is_refused(&one, &two).await;
}

#[tokio::test]
async fn another_version_is_refused() {
    let (one, two) = (node(1).await, unidentified().await);
    two.identify(Identity {
        version_min: 2,
        version_max: 3,
        ..identity(2, 1, &two)
    });
    is_refused(&one, &two).await;
}

#[tokio::test]
async fn an_old_incarnation_is_refused() {
    let (old, new, other) = (unidentified().await, unidentified().await, node(2).await);
    old.identify(identity(1, 1, &old));
    talks(&old, &other).await;
    new.identify(identity(1, 2, &new));
    talks(&new, &other).await;
    // The old one's connection is closed, and a new one refused.
    let deadline = Instant::now() + SOON;
    while old.statistics().rejections == 0 {
        assert!(Instant::now() < deadline, "nobody refuses");
        old.send(other.local_address(), Bytes::from_static(b"ghost"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while let Ok(incoming) = tokio::time::timeout(Duration::from_millis(50), other.receive()).await
    {
        assert_ne!(incoming.unwrap().message, b"ghost"[..]);
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let one = node(1).await;
    let two = node(2).await;
    let address = two.local_address();
    talks(&one, &two).await;
    two.shut_down();
    assert!(two.receive().await.is_none());
    drop(two);
    let deadline = Instant::now() + SOON;
    while one.statistics().dropped_messages == 0 {
        assert!(Instant::now() < deadline, "nothing is dropped");
        one.send(address, Bytes::from_static(b"lost"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = loop {
        match TcpNetwork::bind(address, None).await {
            Ok(network) => break network,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    again.identify(identity(2, 2, &again));
    talks(&one, &again).await;
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted() {
    let one = node(1).await;
    let nowhere = "127.0.0.1:1".parse().unwrap();
    one.send(nowhere, Bytes::from(vec![0; (32 << 20) + 1]));
    assert_eq!(one.statistics().dropped_messages, 1);
    let large = Bytes::from(vec![0; 30 << 20]);
    for _ in 0..3 {
        one.send(nowhere, large.clone());
    }
    assert!(one.statistics().dropped_messages >= 2);
}

/// Sends raw bytes as a peer would, and returns what comes back before the connection is closed.
async fn raw(to: &TcpNetwork, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to.local_address()).await.unwrap();
    // The other side may close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed");
    answer
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend(crc32fast::hash(body).to_be_bytes());
    frame.extend(body);
    frame
}

fn hello(network: &TcpNetwork) -> Vec<u8> {
    let identity = minicbor::to_vec(identity(2, 1, network)).unwrap();
    [b"TESSERA\x01".to_vec(), framed(&identity)].concat()
}

#[tokio::test]
async fn strangers_are_shown_the_door() {
    let one = node(1).await;
    assert_eq!(raw(&one, b"GET / HTTP/1.1\r\n\r\n").await, b"");
    assert_eq!(raw(&one, b"TESSERA\x02--------").await, b"");
    let garbage = [b"TESSERA\x01".to_vec(), framed(&[0xFF; 100])].concat();
    assert_eq!(raw(&one, &garbage).await, b"");
    // 64 KiB is the most that is read of somebody unknown.
    let oversized = [b"TESSERA\x01".to_vec(), framed(&vec![0; 70_000])].concat();
    assert_eq!(raw(&one, &oversized).await, b"");
    let endless = [b"TESSERA\x01".to_vec(), vec![0xFF; 8]].concat();
    assert_eq!(raw(&one, &endless).await, b"");
    // And the network still works.
    let two = node(2).await;
    talks(&two, &one).await;
}

#[tokio::test]
async fn a_peer_that_misbehaves_after_its_hello_is_cut_off() {
    let one = node(1).await;
    let good = framed(b"good");
    let mut damaged = framed(b"damaged");
    *damaged.last_mut().unwrap() ^= 1;
    let oversized = [0x02, 0, 0, 1, 0, 0, 0, 0].to_vec();
    for bad in [damaged, oversized] {
        let bytes = [hello(&one), good.clone(), bad, good.clone()].concat();
        let answer = raw(&one, &bytes).await;
        assert!(answer.starts_with(b"TESSERA\x01"));
        assert_eq!(next(&one).await.message, b"good"[..]);
    }
    let silence = tokio::time::timeout(Duration::from_millis(100), one.receive()).await;
    assert!(silence.is_err(), "nothing behind a bad frame is delivered");
}

/// A sanity check and no benchmark: a debug build on a busy machine passes it many times over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_are_fast() {
    const COUNT: u32 = 100_000;
    let (one, two) = (node(1).await, node(2).await);
    let address = two.local_address();
    let message = Bytes::from(vec![7; 100]);
    let started = Instant::now();
    let receiver = tokio::spawn(async move {
        for _ in 0..COUNT {
            next(&two).await;
        }
    });
    for _ in 0..COUNT {
        one.send(address, message.clone());
    }
    receiver.await.unwrap();
    let per_second = f64::from(COUNT) / started.elapsed().as_secs_f64();
    println!("{per_second:.0} messages of 100 bytes a second");
    assert!(per_second > 10_000.0, "{per_second:.0} messages a second");
}
