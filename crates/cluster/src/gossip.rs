//! Who is alive: SWIM (Das, Gupta, Motivala, 2002) by `foca`, as a pure machine. Messages and timers go in,
//! messages, timers and verdicts come out. Liveness is an opinion, good for routing and for not waiting; no
//! promise rests on it.

use bytes::{Buf, BufMut};
use foca::{
    AccumulatingRuntime, Config, Foca, Header, Identity, Member, Message, NoCustomBroadcast,
    OwnedNotification, PeriodicParams, State, Timer,
};
use model::{Incarnation, NodeId};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// A node as gossip knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipMember {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Grows when the node hears that it was taken for dead, so that it can come back at once.
    pub renewal: u32,
}

impl Identity for GossipMember {
    type Addr = NodeId;

    fn renew(&self) -> Option<GossipMember> {
        Some(GossipMember {
            renewal: self.renewal.wrapping_add(1),
            ..self.clone()
        })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &GossipMember) -> bool {
        (self.incarnation, self.renewal) > (adversary.incarnation, adversary.renewal)
    }
}

/// What is to be done after an input.
#[derive(Debug)]
pub enum GossipEffect {
    Send { to: NodeId, message: Vec<u8> },
    Schedule { after: Duration, timer: GossipTimer },
    Alive(NodeId),
    Dead(NodeId),
}

/// To be handed back when its time has come.
#[derive(Debug)]
pub struct GossipTimer(Timer<GossipMember>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a gossip message is malformed")]
pub struct Malformed;

pub struct Gossip {
    foca: Foca<GossipMember, MemberCodec, Draws, NoCustomBroadcast>,
    alive: BTreeMap<NodeId, bool>,
    this: NodeId,
}

const PROBE_PERIOD: Duration = Duration::from_millis(400);
const PROBE_RTT: Duration = Duration::from_millis(150);
/// A probe's period, a full turn over a small cluster, and this stay below three seconds together.
const SUSPECT_TO_DOWN: Duration = Duration::from_millis(1_200);
const PACKET_BYTES_MAX: usize = 1_400;

impl Gossip {
    /// `draws` gives random bits.
    pub fn new(member: GossipMember, draws: Box<dyn FnMut() -> u64 + Send>) -> Gossip {
        let this = member.node;
        let nonzero = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let every = |ms: u64, members: usize| {
            Some(PeriodicParams {
                frequency: Duration::from_millis(ms),
                num_members: nonzero(members),
            })
        };
        let config = Config {
            probe_period: PROBE_PERIOD,
            probe_rtt: PROBE_RTT,
            num_indirect_probes: nonzero(3),
            max_transmissions: NonZeroU8::new(8).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: SUSPECT_TO_DOWN,
            max_packet_size: nonzero(PACKET_BYTES_MAX),
            notify_down_members: true,
            periodic_announce: every(5_000, 1),
            periodic_announce_to_down_members: every(1_000, 2),
            periodic_gossip: every(300, 2),
            ..Config::simple()
        };
        Gossip {
            foca: Foca::new(member, config, Draws(draws), MemberCodec),
            alive: BTreeMap::from([(this, true)]),
            this,
        }
    }

    /// Says hello to a node that may not know us; its answer brings the others.
    pub fn announce(&mut self, to: NodeId) -> Vec<GossipEffect> {
        // Only the address counts: whoever is there answers, whatever its incarnation.
        let member = GossipMember {
            node: to,
            incarnation: Incarnation(0),
            renewal: 0,
        };
        self.run(|foca, runtime| foca.announce(member, runtime))
            .unwrap_or_default()
    }

    pub fn handle(&mut self, message: &[u8]) -> Result<Vec<GossipEffect>, Malformed> {
        self.run(|foca, runtime| foca.handle_data(message, runtime))
            .ok_or(Malformed)
    }

    pub fn handle_timer(&mut self, timer: GossipTimer) -> Vec<GossipEffect> {
        self.run(|foca, runtime| foca.handle_timer(timer.0, runtime))
            .unwrap_or_default()
    }

    /// Tells the others that this node leaves.
    pub fn leave(&mut self) -> Vec<GossipEffect> {
        self.run(|foca, runtime| foca.leave_cluster(runtime))
            .unwrap_or_default()
    }

    /// Whether a node is taken for alive; one never heard of is not.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.this || self.alive.get(&node).copied().unwrap_or(false)
    }

    fn run(
        &mut self,
        input: impl FnOnce(
            &mut Foca<GossipMember, MemberCodec, Draws, NoCustomBroadcast>,
            &mut AccumulatingRuntime<GossipMember>,
        ) -> Result<(), foca::Error>,
    ) -> Option<Vec<GossipEffect>> {
        let mut runtime = AccumulatingRuntime::new();
        let outcome = input(&mut self.foca, &mut runtime);
        let mut effects = Vec::new();
        while let Some((to, message)) = runtime.to_send() {
            effects.push(GossipEffect::Send {
                to: to.node,
                message: message.to_vec(),
            });
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            let timer = GossipTimer(timer);
            effects.push(GossipEffect::Schedule { after, timer });
        }
        while let Some(notification) = runtime.to_notify() {
            let verdict = match notification {
                OwnedNotification::MemberUp(member) => (member.node, true),
                OwnedNotification::MemberDown(member) => (member.node, false),
                _ => continue,
            };
            if verdict.0 != self.this && self.alive.insert(verdict.0, verdict.1) != Some(verdict.1)
            {
                effects.push(match verdict.1 {
                    true => GossipEffect::Alive(verdict.0),
                    false => GossipEffect::Dead(verdict.0),
                });
            }
        }
        // An error of the protocol (a late timer, a message of an old identity) is no error of the caller's
        // as long as something came of it.
        (outcome.is_ok() || !effects.is_empty()).then_some(effects)
    }
}

/// Random bits, in the shape that `foca` draws them.
struct Draws(Box<dyn FnMut() -> u64 + Send>);

impl rand_core::TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0)() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok((self.0)())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let draw = (self.0)().to_le_bytes();
            chunk.copy_from_slice(&draw[..chunk.len()]);
        }
        Ok(())
    }
}

/// Fixed-width big-endian fields: `docs/formats/internode-requests.md`, gossip.
struct MemberCodec;

const MEMBER_BYTES: usize = 20;

#[derive(Debug, thiserror::Error)]
#[error("a gossip packet is malformed or full")]
struct CodecError;

impl MemberCodec {
    fn put_identity(identity: &GossipMember, buffer: &mut impl BufMut) {
        buffer.put_u64(identity.node.0);
        buffer.put_u64(identity.incarnation.0);
        buffer.put_u32(identity.renewal);
    }

    fn identity(buffer: &mut impl Buf) -> Result<GossipMember, CodecError> {
        if buffer.remaining() < MEMBER_BYTES {
            return Err(CodecError);
        }
        Ok(GossipMember {
            node: NodeId(buffer.get_u64()),
            incarnation: Incarnation(buffer.get_u64()),
            renewal: buffer.get_u32(),
        })
    }

    fn u16(buffer: &mut impl Buf) -> Result<u16, CodecError> {
        buffer.try_get_u16().map_err(|_| CodecError)
    }
}

impl foca::Codec<GossipMember> for MemberCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<GossipMember>,
        mut buffer: impl BufMut,
    ) -> Result<(), CodecError> {
        if buffer.remaining_mut() < 3 * MEMBER_BYTES + 5 {
            return Err(CodecError);
        }
        MemberCodec::put_identity(&header.src, &mut buffer);
        buffer.put_u16(header.src_incarnation);
        MemberCodec::put_identity(&header.dst, &mut buffer);
        let (kind, identity, number) = match &header.message {
            Message::Ping(number) => (1, None, Some(*number)),
            Message::Ack(number) => (2, None, Some(*number)),
            Message::PingReq {
                target,
                probe_number,
            } => (3, Some(target), Some(*probe_number)),
            Message::IndirectPing {
                origin,
                probe_number,
            } => (4, Some(origin), Some(*probe_number)),
            Message::IndirectAck {
                target,
                probe_number,
            } => (5, Some(target), Some(*probe_number)),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => (6, Some(origin), Some(*probe_number)),
            Message::Announce => (7, None, None),
            Message::Feed => (8, None, None),
            Message::Gossip => (9, None, None),
            Message::Broadcast => (10, None, None),
            Message::TurnUndead => (11, None, None),
        };
        buffer.put_u8(kind);
        if let Some(identity) = identity {
            MemberCodec::put_identity(identity, &mut buffer);
        }
        if let Some(number) = number {
            buffer.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<Header<GossipMember>, CodecError> {
        let src = MemberCodec::identity(&mut buffer)?;
        let src_incarnation = MemberCodec::u16(&mut buffer)?;
        let dst = MemberCodec::identity(&mut buffer)?;
        let kind = buffer.try_get_u8().map_err(|_| CodecError)?;
        let other = match kind {
            3..=6 => Some(MemberCodec::identity(&mut buffer)?),
            _ => None,
        };
        let probe_number = match kind {
            1..=6 => buffer.try_get_u8().map_err(|_| CodecError)?,
            _ => 0,
        };
        let message = match (kind, other) {
            (1, _) => Message::Ping(probe_number),
            (2, _) => Message::Ack(probe_number),
            (3, Some(target)) => Message::PingReq {
                target,
                probe_number,
            },
            (4, Some(origin)) => Message::IndirectPing {
                origin,
                probe_number,
            },
            (5, Some(target)) => Message::IndirectAck {
                target,
                probe_number,
            },
            (6, Some(origin)) => Message::ForwardedAck {
                origin,
                probe_number,
            },
            (7, _) => Message::Announce,
            (8, _) => Message::Feed,
            (9, _) => Message::Gossip,
            (10, _) => Message::Broadcast,
            (11, _) => Message::TurnUndead,
            _ => return Err(CodecError),
        };
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<GossipMember>,
        mut buffer: impl BufMut,
    ) -> Result<(), CodecError> {
        if buffer.remaining_mut() < MEMBER_BYTES + 3 {
            return Err(CodecError);
        }
        MemberCodec::put_identity(member.id(), &mut buffer);
        buffer.put_u16(member.incarnation());
        buffer.put_u8(match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buffer: impl Buf) -> Result<Member<GossipMember>, CodecError> {
        let identity = MemberCodec::identity(&mut buffer)?;
        let incarnation = MemberCodec::u16(&mut buffer)?;
        let state = match buffer.try_get_u8().map_err(|_| CodecError)? {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            _ => return Err(CodecError),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}
