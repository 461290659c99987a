"""N hosts that pull one image at the same moment, in network namespaces with slow links."""
