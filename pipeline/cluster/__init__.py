"""Everything that runs on Ray. This room does not know how images, models or tables work inside.

Read in this order:

- `connection`: join a cluster or start one. `handshake`: its token and versions. `local_cluster`: what a cluster
  on this machine needs. `ray_internals`: every use of Ray's private and developer APIs.
- `node_resources`: what the nodes offer. `pools`: the sizes of the pools of actors. `placement`: a watch for
  actors that Ray cannot place.
- `stages`: the stages that rows go through. `workers`: the actors of these stages. `run_work`: the stages and
  tasks of a run, and their end.
- `gather`: finished blocks to groups. `writers`: groups to files. `commit`: files to commits. `ledger`: the
  account of the run. `budget`: how many rows may fail. `metrics`: what Prometheus collects.
- `calls`: independent calls, in this process or on a cluster. `task_calls`: as tasks there.
- `submission`: runs as jobs. `dashboard`: the connection to the Jobs API. `runtime_environment`: the environment
  that a user gives a job.

Threads of the driver: the main thread takes groups of finished blocks and starts their writes. The thread `gather`
waits for Ray Data. Only the thread `commit` commits and changes the account. The thread `watch` looks for unplaced
actors.
"""
