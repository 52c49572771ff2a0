"""The cluster: everything that runs on Ray. This room does not know how images, models or tables work inside.

Read in this order:

- `connection`: join a cluster or start one. `handshake`: token and versions. `local_cluster`: a cluster of our
  own.
- `ray_internals`: every use of Ray's private and developer APIs.
- `node_resources`: what the nodes have. `pools`: how many actors, and what each asks for.
- `workers`: what Ray runs on blocks of rows. `run_work`: the stages and tasks of a run, and their end.
- `commit`: finished blocks to writes to commits. `metrics`: what Prometheus collects.
- `submission`: runs as jobs. `dashboard`: the client of the Jobs API. `runtime_environment`: what a job brings.

Threads of the driver: the main thread takes finished blocks and starts writes. The thread `gather` waits for
Ray Data. The thread `commit` alone commits and keeps the account. The thread of `placement.watched` looks for
actors without a place.
"""
