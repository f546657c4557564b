//! Streams of content: the sender obeys the receiver's signals and sends chunk by chunk, the receiver takes what it
//! asked for and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun};
use peerdist_core::client::{ControlSignal, Event};
use peerdist_core::digest::Digest;
use peerdist_core::message::{TransferId, TransferPace, UnservedReason};
use peerdist_core::names::{NodeName, OfficeName};
use peerdist_core::peer::{ContentClass, NodeRef, Peer};
use peerdist_core::server::ServerEvent;

use crate::client_site::disk_full;
use crate::world::{Action, Site, World};

/// Number of a stream.
pub(crate) type StreamId = u64;

/// After the last chunk the sender waits so long for a want before it ends the stream.
const LINGER: Duration = Duration::from_millis(400);
/// After so long without a packet a connection counts as broken.
const CONNECTION_IDLE: Duration = Duration::from_secs(15);

/// How a holder sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What it was asked for.
    Honest,
    /// Nothing, without an end.
    Stalls,
    /// Other bytes.
    Rubbish,
}

/// A stream from a holder to a receiver.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) sender: Option<NodeRef>,
    sender_life: u64,
    pub(crate) receiver: NodeRef,
    receiver_life: u64,
    transfer: TransferId,
    class: ContentClass,
    digest: Digest,
    pub(crate) manner: Manner,
    queue: VecDeque<ChunkIndex>,
    paused: bool,
    /// Most bytes a second; none is no limit.
    bytes_per_second: Option<u64>,
    /// The receiver moved it to the background: it pauses as long as it sends.
    makes_way: bool,
    /// One of its processes died.
    broken: bool,
    /// When the last chunk began and had left, and its bytes.
    last_sent: (Duration, Duration, u64),
    /// Rises with every wish to send, so that an older one is void.
    turn: u64,
    sending: bool,
    last_arrival: Duration,
}

impl Stream {
    /// When the next chunk may go, by what the receiver said last.
    fn next_at(&self) -> Duration {
        let (began, left_at, bytes) = self.last_sent;
        let by_rate = self.bytes_per_second.map(|rate| Duration::from_secs_f64(bytes as f64 / rate as f64));
        let by_class = self.makes_way.then(|| (left_at - began) * 2);
        by_rate.into_iter().chain(by_class).map(|pause| began + pause).fold(left_at, Duration::max)
    }
}

/// None is no limit.
fn bytes_per_second(bits_per_second: u64) -> Option<u64> {
    (bits_per_second > 0).then_some(bits_per_second.div_ceil(8))
}

impl World {
    #[allow(clippy::too_many_arguments, reason = "a stream has as many properties")]
    pub(crate) fn open_stream(
        &mut self,
        sender: Option<NodeRef>,
        sender_life: u64,
        receiver: NodeRef,
        class: ContentClass,
        transfer: TransferId,
        digest: Digest,
        runs: &[ChunkRun],
        pace: TransferPace,
    ) {
        let receiver_life = self.clients.get(&receiver.name).map_or(0, |site| site.life);
        let delay = self.network.delay(class == ContentClass::Background);
        let stream = Stream {
            sender,
            sender_life,
            receiver,
            receiver_life,
            transfer,
            class,
            digest,
            manner: Manner::Honest,
            queue: runs.iter().flat_map(|run| run.range()).collect(),
            paused: false,
            bytes_per_second: bytes_per_second(pace.bits_per_second),
            makes_way: pace.makes_way,
            broken: false,
            last_sent: (Duration::ZERO, Duration::ZERO, 0),
            turn: 0,
            sending: false,
            last_arrival: Duration::ZERO,
        };
        self.next_stream += 1;
        let id = self.next_stream;
        self.streams.insert(id, stream);
        self.after(delay, Action::StreamOpens(id));
    }

    pub(crate) fn stream_opens(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let from = stream.sender.clone().map_or(Peer::Server, Peer::Node);
        let (receiver, life) = (stream.receiver.name.clone(), stream.receiver_life);
        let (transfer, class, digest) = (stream.transfer, stream.class, stream.digest);
        let expected = self.process(&receiver, life).and_then(|process| process.expected.get_mut(&transfer));
        let fits = expected.filter(|expected| {
            expected.from == from && expected.class == class && expected.digest == digest && expected.stream.is_none()
        });
        let Some(expected) = fits else { return self.drop_stream(id) };
        expected.stream = Some(id);
        let early = std::mem::take(&mut expected.early);
        for signal in early {
            self.signal(id, signal);
        }
        self.tell(&receiver, life, Event::TransferStarted { transfer });
        self.send_at_its_time(id);
    }

    /// The driver passes on what the machine wants to tell the holder.
    pub(crate) fn steer(&mut self, node: &NodeName, life: u64, transfer: TransferId, signal: ControlSignal) {
        let Some(process) = self.process(node, life) else { return };
        if signal == ControlSignal::Cancel {
            if let Some(id) = process.expected.remove(&transfer).and_then(|expected| expected.stream) {
                self.drop_stream(id);
            }
            return;
        }
        let Some(expected) = process.expected.get_mut(&transfer) else { return };
        match expected.stream {
            Some(id) => self.signal(id, signal),
            None => expected.early.push(signal),
        }
    }

    fn signal(&mut self, id: StreamId, signal: ControlSignal) {
        let Some(stream) = self.streams.get(&id) else { return };
        let delay = self.network.delay(stream.class == ContentClass::Background);
        self.after(delay, Action::Signal(id, signal));
    }

    pub(crate) fn signal_arrives(&mut self, id: StreamId, signal: ControlSignal) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.broken) else { return };
        match signal {
            ControlSignal::Pause => stream.paused = true,
            ControlSignal::Resume => stream.paused = false,
            ControlSignal::Want(runs) => stream.queue.extend(runs.iter().flat_map(|run| run.range())),
            ControlSignal::Cancel => return self.drop_stream(id),
            ControlSignal::Rate(bits) => {
                stream.bytes_per_second = bytes_per_second(bits);
                return self.send_at_its_time(id);
            }
            ControlSignal::Class(class) => {
                stream.makes_way = class == ContentClass::Background;
                return self.send_at_its_time(id);
            }
        }
        if !stream.sending {
            self.send_at_its_time(id);
        }
    }

    /// The next chunk goes when its pace allows it; what was planned before is void.
    fn send_at_its_time(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.sending = true;
        stream.turn += 1;
        let (at, turn) = (stream.next_at(), stream.turn);
        self.at(at, Action::StreamSends(id, turn));
    }

    pub(crate) fn stream_sends(&mut self, id: StreamId, turn: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.turn == turn) else { return };
        if stream.paused || stream.manner == Manner::Stalls {
            stream.sending = false;
            return;
        }
        let Some(index) = stream.queue.pop_front() else {
            if stream.sending {
                stream.sending = false;
                self.after(LINGER, Action::StreamSends(id, turn));
                return;
            }
            let whole_at = stream.last_arrival.max(self.now);
            return self.at(whole_at, Action::StreamEnds(id, true));
        };
        let (sender, class, digest) = (stream.sender.clone(), stream.class, stream.digest);
        let office = stream.receiver.office.clone();
        let readable = match &sender {
            None => true,
            Some(_) if stream.manner == Manner::Rubbish => true,
            Some(node) => self
                .clients
                .get(&node.name)
                .and_then(|site| site.store.package(digest))
                .is_some_and(|package| package.written.contains(index)),
        };
        let mut free_at = self.now;
        if readable {
            let bytes = self.chunk_bytes(digest, index);
            let name = sender.as_ref().map(|node| &node.name);
            free_at = self.network.put(self.now, class, name, &office, bytes);
            let arrives = free_at + self.network.delay(class == ContentClass::Background);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.last_arrival = arrives;
                stream.last_sent = (self.now, free_at, bytes);
                free_at = stream.next_at();
            }
            self.at(arrives, Action::ChunkArrives(id, index));
        }
        self.at(free_at, Action::StreamSends(id, turn));
    }

    pub(crate) fn chunk_arrives(&mut self, id: StreamId, index: ChunkIndex) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (receiver, life) = (stream.receiver.clone(), stream.receiver_life);
        let (transfer, digest, class) = (stream.transfer, stream.digest, stream.class);
        let from_server = stream.sender.is_none();
        let bytes = self.chunk_bytes(digest, index);
        let rubbish = stream.manner == Manner::Rubbish;
        if rubbish {
            self.measures.rubbish(bytes);
        } else {
            self.count(&receiver.office, &receiver.name, digest, class, from_server, bytes);
        }
        let Some(process) = self.process(&receiver.name, life) else { return };
        let Some(expected) = process.expected.get_mut(&transfer) else { return };
        if !expected.wanted.remove(&index) || rubbish {
            process.expected.remove(&transfer);
            self.measures.rejected();
            self.drop_stream(id);
            return self.tell(&receiver.name, life, Event::ChunkRejected { transfer, bytes });
        }
        let (Some(site), Some(content)) = (self.clients.get_mut(&receiver.name), self.catalog.get(digest)) else {
            return;
        };
        if site.store.package(digest).is_none() {
            return;
        }
        if site.store.is_full() {
            let (reason, message) = disk_full();
            if let Some(process) = self.process(&receiver.name, life) {
                process.expected.remove(&transfer);
            }
            self.drop_stream(id);
            return self.tell(&receiver.name, life, Event::StoreFailed { digest, reason, message });
        }
        if site.store.write(content, index) {
            self.flush_soon(&receiver.name, life);
        }
        self.plan_flush(&receiver.name, life);
        self.tell(&receiver.name, life, Event::ChunkStored { transfer, index });
    }

    pub(crate) fn stream_ends(&mut self, id: StreamId, whole: bool) {
        let Some(stream) = self.streams.get(&id) else { return };
        if whole && (!stream.queue.is_empty() || stream.sending) {
            return;
        }
        let (receiver, life, transfer) = (stream.receiver.name.clone(), stream.receiver_life, stream.transfer);
        self.drop_stream(id);
        if let Some(process) = self.process(&receiver, life)
            && process.expected.remove(&transfer).is_some()
        {
            let failure = (!whole).then_some(UnservedReason::Unreachable);
            self.tell(&receiver, life, Event::TransferEnded { transfer, failure });
        }
    }

    /// The stream is over for its sender.
    fn drop_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let delay = self.network.delay(stream.class == ContentClass::Background);
        let (to, transfer, life) = (stream.receiver.name, stream.transfer, stream.sender_life);
        match stream.sender {
            Some(node) => {
                let ended = Box::new(Event::ServeEnded { to, transfer });
                self.after(delay, Action::Tell(node.name, life, ended));
            }
            None => {
                let ended = Box::new(ServerEvent::ServeEnded { to, transfer });
                self.after(delay, Action::TellServer(life, ended));
            }
        }
    }

    /// A process died: its streams are silent, and the other ends notice after a while.
    pub(crate) fn break_streams_of(&mut self, site: &Site) {
        let broken: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| {
                stream.sender.as_ref().map(|node| &node.name) == site.as_ref()
                    || Some(&stream.receiver.name) == site.as_ref()
            })
            .map(|(&id, _)| id)
            .collect();
        for id in broken {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.broken = true;
                stream.queue.clear();
                (stream.sending, stream.turn) = (true, stream.turn + 1);
            }
            self.after(CONNECTION_IDLE, Action::StreamEnds(id, false));
        }
    }

    fn chunk_bytes(&self, digest: Digest, index: ChunkIndex) -> u64 {
        let content = self.catalog.get(digest);
        content.and_then(|content| content.lengths.get(index as usize)).map_or(0, |&length| u64::from(length))
    }

    fn count(
        &mut self,
        office: &OfficeName,
        node: &NodeName,
        digest: Digest,
        class: ContentClass,
        from_server: bool,
        bytes: u64,
    ) {
        match class {
            ContentClass::Background => self.measures.wan(office, node, digest, bytes),
            ContentClass::Foreground if from_server => self.measures.server(node, digest, bytes),
            ContentClass::Foreground => self.measures.lan(bytes),
        }
    }
}
