"""Fast sync beside full sync: how much faster, how close to the disk, through what disturbances."""
