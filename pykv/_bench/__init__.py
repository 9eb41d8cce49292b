"""
What `pykv bench` runs. Nothing else of the package imports it.

    quick.py       the main job: library.py is its data, kill.py and writer.py its kills,
                   quick_tables.py what it prints
    compare.py     --standard and --full: plan.py says which parts run, worker.py runs each in a
                   process of its own, tables.py and page.py show what came out
    engines.py     pykv and its peers, all with the same few calls; peers.py, redis.py
    operations.py  ycsb.py  latency.py  tradeoff.py  pagecache.py  durability.py  space.py  cost.py
                   the parts, a chapter each
"""
