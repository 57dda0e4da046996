/** A page to come. */
export function MapPage({ params: _ }: { params: URLSearchParams }) {
  return (
    <>
      <h1>Map</h1>
      <p class="quiet">The map is not here yet.</p>
    </>
  );
}
