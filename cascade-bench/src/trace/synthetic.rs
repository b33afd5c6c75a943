//! Workloads from stated distributions, by seed.

use clap::ValueEnum;

use super::format::Workload;

/// Families of workloads. Times are in seconds, lengths in blocks of 512 tokens; LN(m, s) is log-normal with median m.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Conversations: sessions arrive by Poisson (1 in 2 s), 1 + geometric(mean 3) turns, pauses LN(60, 1), first prompt
    /// LN(8, 1), growth LN(4, 0.8) a turn, one of 20 system prompts (Zipf 1, 1 to 8 blocks) in front.
    Chat,
    /// Questions about documents: 2,000 documents LN(30, 0.7) by Zipf (0.9), each request one of them and 1 to 3 new blocks.
    Documents,
    /// The same, and the order of popularity moves on by one document every 3 s.
    Drift,
    /// Chat, and in each third second a prompt of LN(80, 0.5) blocks that never comes again.
    Scan,
    /// Agents: sessions 1 in 6 s, 1 + geometric(mean 24) steps, pauses LN(4, 0.7), 16 to 24 blocks of tools shared by 5
    /// kinds, growth 1 to 3.
    Agents,
    /// Batches over documents: a document LN(40, 0.6) arrives each 3 s, 1 + geometric(mean 8) questions about it, pauses
    /// LN(20, 1), and never again.
    Batches,
    /// A loop over 800 documents of 25 blocks, in order, a tenth skipped at random: recency knows nothing here.
    Loop,
    /// Documents drawn independently of all before: 5,000 of LN(12, 0.8), Zipf 0.7.
    Independent,
    /// Nothing comes again but one system prompt of 4 blocks: LN(20, 1) new blocks each.
    Fresh,
}

/// Seconds that a workload lasts.
const SECONDS: f64 = 3600.0;
/// Requests of a workload, at most.
const MOST_REQUESTS: usize = 12_000;
/// Blocks of a prompt, at most: a window of 128 Ki tokens.
const MOST_BLOCKS: usize = 256;

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    fn blocks(&mut self, median: f64, sigma: f64) -> usize {
        (self.log_normal(median, sigma).round() as usize).clamp(1, MOST_BLOCKS)
    }

    /// 0, 1, ... with this mean.
    fn geometric(&mut self, mean: f64) -> usize {
        (self.unit().ln() / (mean / (mean + 1.0)).ln()) as usize
    }
}

/// Ranks 0, 1, ... with weight `1 / (rank + 1)^exponent`.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
        let sums = (0..ranks).map(|rank| {
            sum += weight(rank);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let end = self.sums.last().copied().unwrap_or(0.0);
        let wanted = random.unit() * end;
        self.sums.partition_point(|sum| *sum < wanted).min(self.sums.len().saturating_sub(1))
    }
}

/// Requests as they are made, with names of blocks.
#[derive(Default)]
struct Maker {
    requests: Vec<(f64, Vec<u64>)>,
    next: u64,
}

impl Maker {
    fn fresh(&mut self, blocks: usize) -> Vec<u64> {
        let first = self.next;
        self.next += blocks as u64;
        (first..self.next).collect()
    }

    fn push(&mut self, at: f64, mut blocks: Vec<u64>) {
        blocks.truncate(MOST_BLOCKS);
        self.requests.push((at, blocks));
    }

    fn done(mut self, name: String) -> Workload {
        self.requests.retain(|request| request.0 < SECONDS);
        self.requests.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.requests.truncate(MOST_REQUESTS);
        Workload::new(name, self.requests.into_iter().map(|(at, blocks)| ((at * 1e3) as u64, blocks)))
    }
}

/// How sessions go.
struct Sessions {
    every: f64,
    more_turns: f64,
    pause: (f64, f64),
    first: (f64, f64),
    growth: (f64, f64),
}

fn sessions(maker: &mut Maker, random: &mut Random, plan: &Sessions, shared: &[Vec<u64>]) {
    let popularity = Zipf::new(shared.len(), 1.0);
    let mut arrival = random.exponential(plan.every);
    while arrival < SECONDS {
        let mut chain = shared[popularity.draw(random)].clone();
        chain.extend(maker.fresh(random.blocks(plan.first.0, plan.first.1)));
        let mut at = arrival;
        for _ in 0..=random.geometric(plan.more_turns) {
            // The last block of a prompt is mostly not whole: the next turn has another in its place.
            let tail = maker.fresh(1);
            let whole = [chain.as_slice(), &tail].concat();
            maker.push(at, whole);
            chain.extend(maker.fresh(random.blocks(plan.growth.0, plan.growth.1)));
            at += random.log_normal(plan.pause.0, plan.pause.1);
        }
        arrival += random.exponential(plan.every);
    }
}

const CHAT: Sessions =
    Sessions { every: 2.0, more_turns: 3.0, pause: (60.0, 1.0), first: (8.0, 1.0), growth: (4.0, 0.8) };
const AGENTS: Sessions =
    Sessions { every: 6.0, more_turns: 24.0, pause: (4.0, 0.7), first: (3.0, 0.5), growth: (2.0, 0.3) };

fn shared(
    maker: &mut Maker,
    random: &mut Random,
    prompts: usize,
    least: usize,
    most: usize,
) -> Vec<Vec<u64>> {
    (0..prompts).map(|_| maker.fresh(least + random.below(most - least + 1))).collect()
}

/// Requests that draw one of some documents: `drift` is the time in which the order of popularity moves by one.
fn library(maker: &mut Maker, random: &mut Random, shape: (usize, f64, f64, f64), drift: Option<f64>) {
    let (documents, median, sigma, exponent) = shape;
    let texts: Vec<Vec<u64>> = (0..documents).map(|_| maker.fresh(random.blocks(median, sigma))).collect();
    let popularity = Zipf::new(documents, exponent);
    let every = SECONDS / MOST_REQUESTS as f64;
    let mut at = 0.0;
    while at < SECONDS {
        let moved = drift.map_or(0, |step| (at / step) as usize);
        let text = &texts[(popularity.draw(random) + moved) % documents];
        let question = maker.fresh(1 + random.below(3));
        maker.push(at, [text.as_slice(), &question].concat());
        at += random.exponential(every);
    }
}

fn questions(maker: &mut Maker, random: &mut Random, blocks: usize, questions: usize, arrival: f64) {
    let text = maker.fresh(blocks);
    let mut at = arrival;
    for _ in 0..questions {
        let question = maker.fresh(1);
        maker.push(at, [text.as_slice(), &question].concat());
        at += random.log_normal(20.0, 1.0);
    }
}

/// Documents (blocks, questions): each arrives 3 s after the one before on average, its questions LN(20, 1) apart.
#[must_use]
pub fn documents(name: String, documents: &[(usize, usize)], seed: u64) -> Workload {
    let (mut maker, mut random) = (Maker::default(), Random::new(seed));
    let mut arrival = 0.0;
    for (blocks, count) in documents {
        questions(&mut maker, &mut random, *blocks, *count, arrival);
        arrival += random.exponential(3.0);
    }
    maker.done(format!("{name}, a document each 3 s, questions LN(20 s, 1) apart, seed {seed}"))
}

impl Family {
    /// A workload of this family.
    #[must_use]
    pub fn workload(self, seed: u64) -> Workload {
        let (mut maker, mut random) = (Maker::default(), Random::new(seed));
        let (maker_, random_) = (&mut maker, &mut random);
        match self {
            Self::Chat | Self::Scan => {
                let shared = shared(maker_, random_, 20, 1, 8);
                sessions(maker_, random_, &CHAT, &shared);
                if self == Self::Scan {
                    for third in 0..(SECONDS / 3.0) as usize {
                        let prompt = maker_.fresh(random_.blocks(80.0, 0.5));
                        maker_.push(third as f64 * 3.0, prompt);
                    }
                }
            }
            Self::Documents => library(maker_, random_, (2_000, 30.0, 0.7, 0.9), None),
            Self::Drift => library(maker_, random_, (2_000, 30.0, 0.7, 0.9), Some(3.0)),
            Self::Independent => library(maker_, random_, (5_000, 12.0, 0.8, 0.7), None),
            Self::Agents => {
                let shared = shared(maker_, random_, 5, 16, 24);
                sessions(maker_, random_, &AGENTS, &shared);
            }
            Self::Batches => {
                for third in 0..(SECONDS / 3.0) as usize {
                    let (blocks, count) = (random_.blocks(40.0, 0.6), 1 + random_.geometric(8.0));
                    questions(maker_, random_, blocks, count, third as f64 * 3.0);
                }
            }
            Self::Loop => looped(maker_, random_),
            Self::Fresh => {
                let system = maker_.fresh(4);
                for number in 0..MOST_REQUESTS {
                    let new = maker_.fresh(random_.blocks(20.0, 1.0));
                    let at = number as f64 * SECONDS / MOST_REQUESTS as f64;
                    maker_.push(at, [system.as_slice(), &new].concat());
                }
            }
        }
        let name = self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        maker.done(format!("{name}, seed {seed}"))
    }
}

fn looped(maker: &mut Maker, random: &mut Random) {
    let texts: Vec<Vec<u64>> = (0..800).map(|_| maker.fresh(25)).collect();
    for number in 0..MOST_REQUESTS {
        if random.below(10) == 0 {
            continue;
        }
        let question = maker.fresh(1);
        let at = number as f64 * SECONDS / MOST_REQUESTS as f64;
        maker.push(at, [texts[number % texts.len()].as_slice(), &question].concat());
    }
}
