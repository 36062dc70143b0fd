use dmrpc_actors::actor;

struct Runner;

#[actor]
impl Runner {
    #[message(detached)]
    async fn run(&mut self) -> u8 {
        1
    }
}

fn main() {}
