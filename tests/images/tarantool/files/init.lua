box.cfg { wal_dir = '/data', memtx_dir = '/data', vinyl_dir = '/data', wal_mode = 'fsync', memtx_memory = 32 * 1024 * 1024 }
box.schema.space.create('kept', { if_not_exists = true })
box.space.kept:create_index('primary', { if_not_exists = true })
require('console').listen('0.0.0.0:3302')
